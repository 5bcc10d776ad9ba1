"""What is known of the local copy of a service, from the status hook and from its notices. Pure.

A standby is in sync once it holds a committed checkpoint, and stays so when the stream ends: if the active died, that
is the state to resume from; if it lives, the active's own site says that it is unprotected (PROTOCOL R7). An active is
in sync while its peer acknowledges.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from tunnelswitch.core.events import ServiceSeen
from tunnelswitch.core.facts import Protection
from tunnelswitch.replication.notices import CheckpointNotice, Notice, PeerNotice, Role, RoleNotice, RunName, Sequence

STOPPED = "stopped"


class Status(Struct, frozen=True):
    """What the status hook prints, as one JSON object. `start_ticks` (proc(5), field 22) makes the pid unmistakable."""

    pid: Annotated[int, Meta(ge=1, le=2**22)]
    run: RunName
    role: Role
    in_sync: bool = False
    sequence: Sequence = 0
    progress: Annotated[float, Meta(ge=0, le=1)] = 0.0
    why: Annotated[str, Meta(max_length=200)] = ""
    start_ticks: Annotated[int, Meta(ge=0)] | None = None


class Instance:
    """The local copy. An empty run means that there is none."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.clear()

    def clear(self) -> None:
        """There is no process."""
        self.run = ""
        self.role = STOPPED
        self.in_sync = False
        self.connected = False
        self.sequence = 0
        self.progress = 0.0
        self.said = ""

    def take_status(self, status: Status) -> None:
        """Believe the status hook."""
        if status.run != self.run:
            self.clear()
        if status.role == "active" and self.role != "active":  # what it heard as a standby is no peer of its own
            self.connected = False
        self.run, self.role = status.run, status.role
        self.in_sync, self.sequence = status.in_sync, status.sequence
        self.progress, self.said = status.progress, status.why
        if status.in_sync:
            self.connected = True

    def take_notice(self, notice: Notice) -> None:
        """Believe a notice of the run that we watch; one sent before its promotion may arrive after it."""
        if self.role == "active" and not isinstance(notice, PeerNotice) and notice.role == "standby":
            return
        match notice:
            case CheckpointNotice():
                self.role, self.in_sync, self.connected = notice.role, True, True
                self.sequence = notice.sequence
            case PeerNotice():
                self.connected = notice.connected
                if self.role == "active" and not notice.connected:
                    self.in_sync = False
            case RoleNotice():
                self.role, self.in_sync = notice.role, notice.in_sync
                if notice.role == "active":
                    self.connected = notice.in_sync

    def promoted(self) -> None:
        """The standby serves now, and has no standby of its own yet."""
        self.role, self.in_sync, self.connected = "active", False, False

    @property
    def protection(self) -> Protection:
        """Could another copy take over?"""
        if not self.run:
            return Protection.STOPPED
        if self.role == "active" and not self.connected:
            return Protection.UNPROTECTED
        return Protection.PROTECTED if self.in_sync else Protection.SYNCING

    @property
    def why(self) -> str:
        """What is missing to a sound protection: what the copy says itself, or what follows from its state."""
        match self.protection:
            case Protection.STOPPED:
                return "no process"
            case Protection.UNPROTECTED:
                return self.said or "no standby takes its checkpoints"
            case Protection.SYNCING:
                return self.said or "no checkpoint is committed yet"
        return self.said

    def seen(self) -> ServiceSeen:
        """The event that says all this."""
        known = (self.service, self.run, self.role, self.protection, self.in_sync, self.sequence)
        return ServiceSeen(*known, progress=self.progress, why=self.why)
