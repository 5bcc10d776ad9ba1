"""What comes out of the machines. Their order in the tuple is the order of sending (PROTOCOL R6): tell the standby
first, then work at home; everything after that runs in parallel, each with its own deadline."""

from __future__ import annotations

from dataclasses import dataclass

from tunnelswitch.core import facts
from tunnelswitch.core.facts import GroupRecord, Reason
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import Tunnel

Message = (
    facts.Heartbeat
    | facts.Epoch
    | facts.Proof
    | facts.Handover
    | facts.HandoverRefused
    | facts.MoveRequest
    | facts.PlanRequest
    | facts.DrainRequest
    | facts.PauseRequest
    | facts.Applied
    | facts.Serving
    | facts.PromoteFailed
    | facts.CheckpointSeen
    | facts.Decision
    | facts.Failover
    | facts.Traffic
)


@dataclass(frozen=True, slots=True)
class Publish:
    """Send on the bus. `flush`: it must have left the socket before the next action starts."""

    message: Message
    flush: bool = False


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """Leader-confirmed read. Answer: RecordRead or ReadFailed."""

    group: str
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """Compare-and-set. Answer: Committed, CommitRefused or CommitUnknown."""

    record: GroupRecord
    revision: int
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class ApplyTunnels:
    """One guarded transaction: wait that `expected` is stored, store `stamp`, add client tunnel ends, and remove those
    of `remove` that are there.

    Answer: SwitchApplied, SwitchConflict or SwitchFailed.
    """

    group: str
    stamp: Stamp
    expected: Stamp | None
    add: tuple[Tunnel, ...]
    remove: tuple[Tunnel, ...]
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class PinLeader:
    """Keep the epoch store's stream leader off these sites. No answer: it is tried again by itself."""

    avoid: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Promote:
    """This run, the local standby, resumes the service; another one that has taken its place meanwhile does not. An
    empty run is any. Answer: Promoted or PromotionFailed."""

    service: str
    run: str
    stamp: Stamp
    reason: Reason
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class Fence:
    """Stop the local instance of this run for good. Answer: FenceDone or FenceFailed."""

    service: str
    run: str
    stamp: Stamp
    reason: Reason
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class TakeCheckpoint:
    """Wait for a checkpoint of this run that is committed after now; `urgent`: clients wait, it is to begin at once.
    Answer: CheckpointTaken or CheckpointFailed, with the same `request`."""

    service: str
    run: str
    request: int
    urgent: bool
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class AllowOutput:
    """Output that no standby holds may leave, or must wait (`core.alone`). Repeated while it may. No answer."""

    service: str
    allowed: bool


Action = Publish | ReadRecord | CommitRecord | ApplyTunnels | PinLeader | Promote | Fence | TakeCheckpoint | AllowOutput
