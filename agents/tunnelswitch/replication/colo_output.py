"""The machine's output, held between its tap and the service's bridge until its checkpoint is committed.

Between the two stands nothing but this: frames of the machine are taken off the tap, and what may leave is sent into a
veth pair whose other end is the bridge's port. The kernel itself carries the other direction, and the ports that are
declared as real time. So a process that dies lets nothing out (it fails closed), and what comes in and real time go on.

What may leave is decided in `held`. Frames leave a slice at a time: a switch that is handed a whole interval at once
would drop part of it, and the event loop has more to do.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import structlog

from tunnelswitch.adapters.frames import FrameTap, realtime_keys
from tunnelswitch.adapters.links import MATCH_ALL, Links
from tunnelswitch.config import Output
from tunnelswitch.errors import DataPlaneError, TunnelswitchError
from tunnelswitch.replication.held import HeldOutput
from tunnelswitch.replication.mistakes import unforeseen

RETRY_SECONDS = 0.25
SLICE_FRAMES, SLICE_FRAMES_MAX = 32, 256  # more the more waits: what comes in must not outrun what leaves
SLICE_SECONDS = 0.001
READ_FRAMES = 64
# More than the kernel's buffer holds.
DRAIN_FRAMES = 1 << 16
CLOCK_STEP_NS = 5_000_000


class OutputHold:
    """The output of one machine at one site.

    Args:
        changed: it can now hold output, or cannot any more; called from the event loop.
        count: called with output_failed for every attempt to take hold that failed.
    """

    def __init__(
        self, service: str, options: Output, changed: Callable[[], None], count: Callable[[str], None]
    ) -> None:
        self.held = HeldOutput(options.held_bytes_max)
        self.problem = "not yet"
        self.missed = self.unsent = 0
        self._options = options
        self._changed, self._count = changed, count
        self._log = structlog.get_logger(__name__).bind(service=service, device=options.machine_device)
        self._tap: FrameTap | None = None
        self._leaving: deque[bytes] = deque()
        self._leaving_bytes = 0
        self._pacing: asyncio.TimerHandle | None = None
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._offset_ns = _clock_offset_ns()

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to take hold; devices that are not there are tried again for ever."""
        self._task = asyncio.create_task(self._keep(), name="output hold")

    async def close(self) -> None:
        """Let go: from now on nothing leaves but real time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._shut()

    @property
    def ready(self) -> bool:
        """Does output pass through our hands?"""
        return self._tap is not None

    async def _keep(self) -> None:
        options = self._options
        while True:
            try:
                await self._redirect()
                self._open(FrameTap(options.machine_device, options.bridge_device, options.realtime_ports))
            except Exception as error:  # noqa: BLE001 - see `unforeseen`
                self._shut()
                self._complain(self._named(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await self._lost.wait()

    async def _redirect(self) -> None:
        """The kernel's part: what comes in, and real time."""
        machine, bridge = self._options.machine_device, self._options.bridge_device
        async with Links() as links:
            for device in (machine, bridge):
                await links.silence(device)
            await links.redirect(bridge, machine, [MATCH_ALL])
            keys = [one for ports in self._options.realtime_ports for one in realtime_keys(ports)]
            await links.redirect(machine, bridge, keys)

    def _open(self, tap: FrameTap) -> None:
        self._tap, self.problem = tap, ""
        self._lost.clear()
        asyncio.get_running_loop().add_reader(tap.fileno(), self._readable)
        self._log.info("output_held")
        self._let_go([])
        self._changed()

    def _shut(self) -> None:
        if self._pacing is not None:
            self._pacing.cancel()
            self._pacing = None
        if self._tap is not None:
            asyncio.get_running_loop().remove_reader(self._tap.fileno())
            self._tap.close()
            self._tap = None

    def _named(self, error: Exception) -> TunnelswitchError:
        if isinstance(error, TunnelswitchError):
            return error
        return DataPlaneError(str(error)) if isinstance(error, OSError) else unforeseen(error, self._log)

    def _complain(self, error: TunnelswitchError) -> None:
        self._count("output_failed")
        if self.problem != error.problem:
            self._log.warning("output_not_held", problem=error.diagnostics())
        self.problem = error.problem

    def _device_lost(self, error: OSError) -> None:
        self._shut()
        devices = f"{self._options.machine_device} or {self._options.bridge_device}"
        self._complain(DataPlaneError(f"{devices} went away: {error.strerror}"))
        self._lost.set()
        self._changed()

    # ------------------------------------------------------------------ frames

    def _readable(self) -> None:
        self._read(READ_FRAMES)

    def _read(self, limit: int) -> None:
        if self._tap is None:
            return
        take, passing = self.held.take, []
        try:
            for at_ns, frame in self._tap.frames(limit):
                if take(at_ns, frame):
                    passing.append(frame)
        except OSError as error:
            self._device_lost(error)
        self._let_go(passing)

    def _let_go(self, frames: list[bytes]) -> None:
        """These may leave. What does not fit into the limit is dropped, as in `held`."""
        for frame in frames:
            if self._leaving and self._leaving_bytes + len(frame) > self._options.held_bytes_max:
                self.unsent += 1
                continue
            self._leaving.append(frame)
            self._leaving_bytes += len(frame)
        if self._leaving and self._pacing is None:
            self._send()

    def _send(self) -> None:
        """One slice."""
        self._pacing = None
        leaving, tap = self._leaving, self._tap
        if tap is None:
            return
        try:
            for _ in range(min(len(leaving), SLICE_FRAMES_MAX, max(SLICE_FRAMES, len(leaving) // 8))):
                frame = leaving.popleft()
                self._leaving_bytes -= len(frame)
                self.unsent += not tap.send(frame)
        except OSError as error:
            self._device_lost(error)
            return
        if leaving:
            self._pacing = asyncio.get_running_loop().call_later(SLICE_SECONDS, self._send)

    # ------------------------------------------------------------------ what it waits for

    def follow(self, *, guarded: bool) -> None:
        """Does a peer take the machine's state?"""
        if guarded:
            self.held.guard(time.time_ns())
            return
        self.held.unguard()
        self._let_go(self.held.loose())

    def allow(self, allowed: bool) -> None:
        """The core's word on output that no standby holds."""
        self._let_go(self.held.allow(allowed, time.monotonic()))

    def stopped(self, at_ns: int) -> None:
        """The machine was stopped for a checkpoint at this time of the host's clock."""
        self._check_clock()
        self.held.stopped(at_ns, time.monotonic())

    def committed(self) -> None:
        """The standby holds the checkpoint of the last stop."""
        self._read(DRAIN_FRAMES)  # a frame from before the stop may still lie in the socket
        self._check_clock()
        before = self.held.covered
        self._let_go(self.held.committed(time.monotonic()))
        if self._tap is not None:
            self.missed += self._tap.missed()
        if self.held.covered != before:
            self._changed()

    def ended(self) -> None:
        """The machine is gone, and what it still had to say with it."""
        self._leaving.clear()
        self._leaving_bytes = 0
        self.held.discard()

    def _check_clock(self) -> None:
        """Frames and stops are compared by the host's clock, which may be set."""
        offset_ns = _clock_offset_ns()
        if abs(offset_ns - self._offset_ns) > CLOCK_STEP_NS:
            self._log.warning("the system clock was set", by_seconds=(offset_ns - self._offset_ns) / 1e9)
            self.held.clock_set(time.time_ns(), time.monotonic())
        self._offset_ns = offset_ns

    def figures(self) -> dict[str, float]:
        """For `telemetry.machines`."""
        held, counts = self.held, self.held.counts
        return {
            "output_held_packets": len(held) + len(self._leaving),
            "output_held_bytes": held.bytes + self._leaving_bytes,
            "output_oldest_seconds": held.oldest_seconds(time.time_ns()),
            "output_unheld": float(not self.ready),
            "output_passed": counts.passed,
            "output_released": counts.released,
            "output_dropped": counts.dropped + self.missed + self.unsent,
            "output_discarded": counts.discarded,
        }


def _clock_offset_ns() -> int:
    """The system clock less the monotonic one. Taken thrice: an interruption between two readings makes one wrong."""
    readings = []
    for _ in range(3):
        before = time.monotonic_ns()
        wall = time.time_ns()
        readings.append((time.monotonic_ns() - before, wall - before))
    return min(readings)[1]
