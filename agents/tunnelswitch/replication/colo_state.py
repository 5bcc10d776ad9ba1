"""What is known of one copy of a virtual machine, folded from QEMU's answers and events. Pure.

A checkpoint is a STOP and the RESUME after it: QEMU resumes when the other copy holds the state. A secondary is halted
by us between checkpoints, so that there each RESUME is one. It stays in
sync when its stream ends: if the active died, that is the state to go on from; if it lives, the active's own site says
that it is unprotected (PROTOCOL R7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunnelswitch.core.events import ServiceSeen
from tunnelswitch.core.facts import Protection
from tunnelswitch.replication import colo_qmp as qmp
from tunnelswitch.replication.colo_qmp import Copied, Mode

INCOMING = "inmigrate"
RUNNING = "running"
HALTED = "paused"
# Run states in which a checkpoint, or the copying before the first one, holds the machine.
HELD = ("colo", "finish-migrate")
# A migration's, while it is under way.
COPYING = ("setup", "active", "device", "pre-switchover", "postcopy-active", "cancelling")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that is committed: its number, how long it stopped the machine (0 at the standby, which stands still anyway),
    and who took part as what."""

    role: str
    sequence: int
    pause_seconds: float


class Machine:
    """The local copy. An empty run means that there is none.

    Attributes:
        outgrown: its process nears its memory limit.
        checkpoint_overdue: a standby has had none for very long.
        output_ready: its output can be held back, or need not be.
        output_covered: output has been held since before the last checkpoint, or need not be.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.clear()

    def clear(self) -> None:
        """There is no QEMU."""
        self.run = ""
        self.mode = Mode.NONE
        self.run_state = ""
        self.migration = ""
        self.copied = Copied()
        self.obstacle = ""
        self.problem = ""
        self.sequence = 0
        self.stopped_at: float | None = None
        self.peer_lost = False
        self.stream_ended = False
        self.outgrown = self.checkpoint_overdue = False
        self.output_ready = self.output_covered = True

    def found(self, run: str) -> None:
        """There is a QEMU; nothing is known of it yet."""
        if run != self.run:
            self.clear()
            self.run = run

    def take_answers(self, mode: Mode, run_state: str, migration: str, copied: Copied | None = None) -> None:
        """Believe QEMU's answers about itself."""
        if mode is not Mode.PRIMARY:
            self.peer_lost = False
        else:
            self.problem = ""
        self.mode, self.run_state, self.migration, self.copied = mode, run_state, migration, copied or Copied()

    def take_event(self, event: Mapping[str, Any], now: float) -> Checkpoint | None:
        """Fold one event that came at `now` (seconds, any clock); returns the checkpoint that it completes."""
        name = event.get("event")
        at = qmp.event_seconds(event) or now
        if name == qmp.STOP:
            self.stopped_at = at
        elif name == qmp.RESUME:
            stopped_at, self.stopped_at = self.stopped_at, None
            if self.mode is Mode.SECONDARY:
                if self.stream_ended:
                    return None  # it takes over
                self.sequence += 1
                return Checkpoint(self.role, self.sequence, 0.0)
            if stopped_at is not None and self.mode is Mode.PRIMARY and not self.peer_lost:
                self.sequence += 1
                return Checkpoint(self.role, self.sequence, max(0.0, at - stopped_at))
        elif name == qmp.COLO_EXIT:
            self.stopped_at = None
            self.stream_ended = self.mode is Mode.SECONDARY
            self.peer_lost = self.mode is Mode.PRIMARY
        elif name == qmp.MIGRATION:
            self.migration = qmp.migration_status(event.get("data"))
        return None

    def promoted(self) -> None:
        """The secondary serves now, and has no secondary of its own yet."""
        self.mode, self.run_state, self.migration = Mode.NONE, RUNNING, ""
        self.stopped_at = None

    @property
    def known(self) -> bool:
        """Has QEMU ever said what it is?"""
        return bool(self.run_state)

    @property
    def role(self) -> str:
        if not self.run:
            return "stopped"
        return "standby" if self.mode is Mode.SECONDARY or self.run_state == INCOMING else "active"

    @property
    def in_sync(self) -> bool:
        """Primary: the peer takes our checkpoints. Secondary: it holds a state to go on from."""
        if self.obstacle or not self.run or not self.output_ready:
            return False
        return self.mode is Mode.SECONDARY or (self.checkpointed and self.output_covered)

    @property
    def checkpointed(self) -> bool:
        """Does a peer take our checkpoints?"""
        return self.mode is Mode.PRIMARY and not self.peer_lost

    @property
    def protection(self) -> Protection:
        """Could another copy take over?"""
        if not self.run:
            return Protection.STOPPED
        if self.in_sync:
            return Protection.PROTECTED
        if self.checkpointed and not self.obstacle:
            return Protection.SYNCING  # output from before it was held may still be on its way to clients
        if self.role == "active" and (self.obstacle or self.migration not in COPYING):
            return Protection.UNPROTECTED
        return Protection.SYNCING

    @property
    def left(self) -> bool:
        """A secondary whose stream has ended. An agent that was not there then goes by what does not come."""
        return self.mode is Mode.SECONDARY and (self.stream_ended or self.checkpoint_overdue)

    @property
    def why(self) -> str:
        """What is missing to a sound protection."""
        match self.protection:
            case Protection.STOPPED:
                return "no QEMU"
            case Protection.UNPROTECTED:
                return self.obstacle or self.problem or "no standby yet"
            case Protection.SYNCING if self.role == "standby":
                return self.obstacle or "waits for the active's state"
            case Protection.SYNCING:
                return "the standby is given the whole state"
        return ""

    @property
    def wants_protection(self) -> bool:
        """An active without a standby, which may have one."""
        return (
            self.role == "active"
            and self.run_state == RUNNING
            and self.mode is Mode.NONE
            and self.protection is Protection.UNPROTECTED
            and not self.obstacle
        )

    def seen(self) -> ServiceSeen:
        """The event that says all this."""
        known = (self.service, self.run, self.role, self.protection, self.in_sync, self.sequence)
        progress = self.copied.progress if self.role == "active" and self.protection is Protection.SYNCING else 0.0
        return ServiceSeen(*known, progress=progress, why=self.why, outgrown=self.outgrown, left=self.left)
