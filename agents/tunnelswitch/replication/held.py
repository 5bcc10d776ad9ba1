"""Output of a protected machine that waits for its checkpoint. Pure: frames and times in, frames out.

What a machine sent before it was stopped for a checkpoint is in that checkpoint, and may leave when the standby holds
it. What it sends afterwards waits for the next one. The kernel stamps a frame when it leaves the machine, and QEMU
stamps the stop, both by the host's clock, so that nobody who looks late can take a frame for an earlier one: the
machine stands still from its stop to the commit.

Nothing leaves without a checkpoint, except while two things are so: no peer takes our state, and the record says that
nobody can take over (`core.alone`). What does not fit into the limit is dropped, as a full queue in a network would.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

# A word of the core that crossed with our claim to have a standby is not believed; it is repeated each second.
CROSSED_SECONDS = 0.1
# After the clock was set, the stamp of a stop may still be one of the old time.
DEAF_SECONDS = 1.0
NANOSECONDS = 1_000_000_000


@dataclass(slots=True)
class Counts:
    """Frames since the start."""

    passed: int = 0
    released: int = 0
    dropped: int = 0
    discarded: int = 0


class HeldOutput:
    """The queue, and what it waits for. Times in nanoseconds are of the frames' clock, `now` is monotonic seconds.

    Args:
        limit_bytes: so much is held at most.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.counts = Counts()
        self.bytes = 0
        self._limit_bytes = limit_bytes
        self._frames: deque[tuple[int, bytes]] = deque()
        self._allowed = False
        self._guarded_since_ns: int | None = None
        self._covered = False
        self._claimed_at = float("-inf")
        self._stopped_at_ns: int | None = None
        self._deaf_until = float("-inf")

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def passes(self) -> bool:
        """Does output leave at once?"""
        return self._allowed and self._guarded_since_ns is None

    @property
    def covered(self) -> bool:
        """Has a checkpoint been committed since output began to wait for them? Only then is the standby one that knows
        everything that clients were told."""
        return self._covered

    def oldest_seconds(self, now_ns: int) -> float:
        """How long the first frame has been waiting; 0 if none is."""
        return max(0, now_ns - self._frames[0][0]) / NANOSECONDS if self._frames else 0.0

    def take(self, at_ns: int, frame: bytes) -> bool:
        """The machine sent a frame; True if it may leave at once. Otherwise it is held."""
        if self.passes:
            self.counts.passed += 1
            return True
        if self.bytes + len(frame) > self._limit_bytes:
            self.counts.dropped += 1
            return False
        self._frames.append((at_ns, frame))
        self.bytes += len(frame)
        return False

    # ------------------------------------------------------------------ checkpoints

    def guard(self, now_ns: int) -> None:
        """A peer takes our state from now on: everything waits."""
        if self._guarded_since_ns is None:
            self._guarded_since_ns = now_ns

    def unguard(self) -> None:
        """No peer takes it any more. What is held stays held until the core allows it to leave."""
        self._guarded_since_ns = self._stopped_at_ns = None
        self._covered = False

    def stopped(self, at_ns: int, now: float) -> None:
        """The machine was stopped for a checkpoint."""
        self._stopped_at_ns = at_ns if now >= self._deaf_until else None

    def committed(self, now: float) -> list[bytes]:
        """The standby holds that checkpoint: what may leave. Every frame from before the stop has been taken."""
        stopped_at_ns, self._stopped_at_ns = self._stopped_at_ns, None
        if stopped_at_ns is None or self._guarded_since_ns is None:
            return []
        if stopped_at_ns >= self._guarded_since_ns and not self._covered:
            self._covered, self._allowed, self._claimed_at = True, False, now
        leaving = []
        while self._frames and self._frames[0][0] <= stopped_at_ns:
            leaving.append(self._pop())
        self.counts.released += len(leaving)
        return leaving

    # ------------------------------------------------------------------ without them

    def allow(self, allowed: bool, now: float) -> list[bytes]:
        """The core's word on output that no standby holds; returns what may leave by it."""
        if allowed and now - self._claimed_at < CROSSED_SECONDS:
            return []
        self._allowed = allowed
        return self.loose()

    def loose(self) -> list[bytes]:
        """What is still held although nothing has to wait."""
        if not self.passes:
            return []
        leaving = [self._pop() for _ in range(len(self._frames))]
        self.counts.released += len(leaving)
        return leaving

    def clock_set(self, now_ns: int, now: float) -> None:
        """The clock jumped. Held frames count as sent now, and stops of the old time as none: all only wait longer."""
        self._frames = deque((now_ns, frame) for _, frame in self._frames)
        self._stopped_at_ns = None
        self._deaf_until = now + DEAF_SECONDS
        if self._guarded_since_ns is not None:
            self._guarded_since_ns = now_ns

    def discard(self) -> None:
        """The machine has ended: what it still had to say went with it."""
        self.counts.discarded += len(self._frames)
        self._frames.clear()
        self.bytes = 0
        self.unguard()

    def _pop(self) -> bytes:
        _, frame = self._frames.popleft()
        self.bytes -= len(frame)
        return frame
