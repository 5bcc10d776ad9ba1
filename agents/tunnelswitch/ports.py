"""What the processes need of the world, as Protocols. One adapter per file stands behind each; tests put fakes there.

Adapters know no rule and read no record's meaning: they carry out one action, or say what they see through the `emit`
they were given. `emit` takes a core event, never blocks, and may be called from the event loop only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from tunnelswitch.core.actions import ApplyTunnels, Fence, Message, Promote, TakeCheckpoint
from tunnelswitch.core.events import (
    CheckpointFailed,
    CheckpointTaken,
    FenceDone,
    FenceFailed,
    Promoted,
    PromotionFailed,
    SwitchApplied,
    SwitchConflict,
    SwitchFailed,
)
from tunnelswitch.core.facts import GroupRecord

Emit = Callable[[object], None]


def uncounted(kind: str) -> None:
    """For whoever counts no problems."""


class Bus(Protocol):
    """Pub/sub between the sites. Messages arrive through `emit` already checked: of our version, decodable, in size."""

    @property
    def connected(self) -> bool: ...

    async def start(self) -> None:
        """Begin to connect and subscribe, and return; an absent bus is retried for ever in the background."""

    async def close(self) -> None: ...

    def publish(self, message: Message) -> None:
        """Hand over without waiting. While disconnected the message is dropped and counted: nothing is replayed."""

    async def flush(self, deadline_seconds: float) -> None:
        """Return once everything published so far has left the socket, or at the deadline."""


class Epochs(Protocol):
    """The records' store: compare-and-set with leader-confirmed reads."""

    async def read(self, group: str, deadline_seconds: float) -> tuple[GroupRecord | None, int]:
        """The record and its revision; (None, 0) when there is none.

        Raises:
            EpochStoreError: no confirmed answer before the deadline.
        """

    async def commit(self, record: GroupRecord, revision: int, deadline_seconds: float) -> int:
        """Replace the record of exactly this revision; returns the new one.

        Raises:
            CommitRefusedError: another revision is there; nothing was written.
            CommitUnknownError: no answer before the deadline; it may land.
        """

    async def pin_leader(self, avoid: tuple[str, ...]) -> str | None:
        """Move the stream's leader off the sites in `avoid` if it is there. Returns the leader's site."""


class MetaLeader(Protocol):
    """Where JetStream itself is led from."""

    async def pin_leader(self, avoid: tuple[str, ...]) -> str | None:
        """Move JetStream's own leader off the sites in `avoid` if it is there. Returns the leader's site."""


class DataPlane(Protocol):
    """This site's OVSDB: client tunnel ends and the stamps they follow. Emits DataPlaneSeen and DataPlaneLost."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def apply(self, action: ApplyTunnels) -> SwitchApplied | SwitchConflict | SwitchFailed: ...


class Paths(Protocol):
    """The probe mesh (GRE with BFD on a bridge that forwards nothing). Emits PathChanged."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class ServiceDriver(Protocol):
    """One protected service on this site. Emits ServiceSeen, RunExited and CheckpointSeen facts."""

    @property
    def health_failures(self) -> int:
        """How often in a row the copy here was found unhealthy; 0 where nobody looks. No decision rests on it."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def checkpoint(self, action: TakeCheckpoint) -> CheckpointTaken | CheckpointFailed: ...

    async def promote(self, action: Promote) -> Promoted | PromotionFailed: ...

    async def fence(self, action: Fence) -> FenceDone | FenceFailed: ...

    def allow_output(self, allowed: bool) -> None:
        """May output leave that no standby holds? For drivers that hold it back; at first it may not."""

    def figures(self) -> Mapping[str, float]:
        """What its metrics are made of, by the names of `telemetry.machines`."""


class ClientPackets(Protocol):
    """The clients' packets at a gateway. Emits ClientsSeen and Traffic facts."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...
