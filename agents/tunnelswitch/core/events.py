"""What goes into the machines besides the bus facts of `facts.py`: results of actions, and what the adapters saw."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunnelswitch.core.facts import GroupRecord, Path, Protection
from tunnelswitch.core.stamp import Stamp


@dataclass(frozen=True, slots=True)
class PathChanged:
    """BFD's word on the path to a site."""

    site: str
    path: Path


@dataclass(frozen=True, slots=True)
class LoopLate:
    """This process itself ran late by so much: what it thinks it saw meanwhile is worth nothing."""

    lateness_seconds: float


@dataclass(frozen=True, slots=True)
class ClientsSeen:
    """Clients of a service have waited this long for an answer; 0 when they wait no more: they are `answered`, or
    nobody asks, or that is not known."""

    service: str
    unanswered_seconds: float
    answered: bool = False


@dataclass(frozen=True, slots=True)
class RecordRead:
    """A leader-confirmed read of a group's record; `record` is None when the store has none."""

    group: str
    record: GroupRecord | None
    revision: int


@dataclass(frozen=True, slots=True)
class ReadFailed:
    group: str
    error: str


@dataclass(frozen=True, slots=True)
class Committed:
    """The compare-and-set was acknowledged."""

    record: GroupRecord
    revision: int


@dataclass(frozen=True, slots=True)
class CommitRefused:
    """Somebody else's revision is there: read again, decide again."""

    group: str


@dataclass(frozen=True, slots=True)
class CommitUnknown:
    """No answer in time: it may have landed or not. Read, and look for the own decision_id."""

    group: str
    error: str


@dataclass(frozen=True, slots=True)
class DataPlaneSeen:
    """What this site's OVSDB holds: the stamp per group and the client tunnel ends that are ours.

    `broken` names those of `present` whose rows are not as they should be (another key, another remote). `foreign`
    names interfaces that bear one of our names but not our mark: never touched, alarmed.
    """

    stored: dict[str, Stamp] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()
    foreign: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DataPlaneLost:
    """OVSDB does not answer."""

    error: str


@dataclass(frozen=True, slots=True)
class SwitchApplied:
    """The transaction is committed (`committed_at`) and vswitchd follows it (`applied_at`), by this process' clock."""

    group: str
    stamp: Stamp
    present: frozenset[str]
    submitted_at: float
    committed_at: float
    applied_at: float


@dataclass(frozen=True, slots=True)
class SwitchConflict:
    """The guard did not match: another value is stored. Nothing was written. `present` are the group's ends there."""

    group: str
    stored: Stamp | None
    present: frozenset[str]


@dataclass(frozen=True, slots=True)
class SwitchFailed:
    group: str
    error: str


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """The driver's word on the local instance. An empty run means that there is none. `progress` (0 to 1) is how much
    of a copy under way the peer has; `why` what is missing to a sound protection: said of one that is protected, it is
    degraded. The number of the last checkpoint makes no difference between two: checkpoints tell of themselves.
    `outgrown`: its process nears its memory limit. `left`: a standby whose active has left it: it holds what it last
    had, and will never get more."""

    service: str
    run: str
    role: str
    protection: Protection
    in_sync: bool
    checkpoint_sequence: int = field(default=0, compare=False)
    progress: float = 0.0
    why: str = ""
    outgrown: bool = False
    left: bool = False


@dataclass(frozen=True, slots=True)
class RunExited:
    """Nothing of this run will ever run again: known from pidfds, never from a missing answer."""

    service: str
    run: str


@dataclass(frozen=True, slots=True)
class Promoted:
    service: str
    run: str
    seconds: float


@dataclass(frozen=True, slots=True)
class PromotionFailed:
    service: str
    error: str


@dataclass(frozen=True, slots=True)
class CheckpointTaken:
    """The standby holds a checkpoint that has everything that the run did until `holds_until`, by this process' clock:
    when it was asked for, or, of a copy that stands still while it is taken, when that went on."""

    service: str
    request: int
    sequence: int
    holds_until: float


@dataclass(frozen=True, slots=True)
class CheckpointFailed:
    service: str
    request: int
    error: str


@dataclass(frozen=True, slots=True)
class FenceDone:
    """The local instance is stopped and cannot serve (level `halted`)."""

    service: str
    run: str


@dataclass(frozen=True, slots=True)
class FenceFailed:
    service: str
    error: str


@dataclass(frozen=True, slots=True)
class LeaderSeen:
    """The site whose NATS node leads the epoch store's stream; empty if there is none."""

    site: str
