"""What the sites tell each other: the payloads of the bus, and the record that the epoch store holds.

Plain frozen dataclasses, so that the core needs no codec and the bus no second set of types. `bus/` gives each of them
a type name, a subject and a JSON Schema. Durations are seconds; `*_at` are seconds since the Unix epoch and for people
and reports only: no decision reads another machine's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from tunnelswitch.core.stamp import Stamp

SERVICES_EVERY_BEAT_MAX = 8
"""A site with no more services says all of them in every heartbeat, to the moment."""


class Path(StrEnum):
    """State of the underlay path to a site, by BFD (RFC 5880)."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


class Bus(StrEnum):
    """Whether a site's heartbeats arrive."""

    ALIVE = "alive"
    SILENT = "silent"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why a record was written."""

    INIT = "init"
    PROOF = "proof"
    SUSPICION = "suspicion"
    CUT_OFF = "cut_off"
    OPERATOR = "operator"
    PROMOTE_FAILED = "promote_failed"
    PROTECTION = "protection"
    REARM = "rearm"
    RECOVERY = "recovery"


class ProofKind(StrEnum):
    """Evidence that cannot be wrong (PROTOCOL R5)."""

    EXITED = "exited"
    FENCED = "fenced"


class Protection(StrEnum):
    """Is there a standby that could take over without losing more than one checkpoint?"""

    PROTECTED = "protected"
    SYNCING = "syncing"
    UNPROTECTED = "unprotected"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """The one value per group in the epoch store. Every change of it is a compare-and-set. Sites in `drained` are not
    to serve until an operator says so. `paused` says who paused automatic moves, and why; empty: nobody did."""

    group: str
    stamp: Stamp
    active: str
    previous: str
    in_sync: bool
    reason: Reason
    voters: tuple[str, ...]
    gateways: tuple[str, ...]
    prev_id: str = ""
    active_run: str = ""
    standby_run: str = ""
    evidence: tuple[str, ...] = ()
    decided_by: str = ""
    decided_at: float = 0.0
    drained: tuple[str, ...] = ()
    paused: str = ""
    paused_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What one site sees of another, and for how long it has seen that."""

    subject: str
    path: Path
    path_seconds: float
    bus: Bus
    bus_seconds: float


@dataclass(frozen=True, slots=True)
class Vote:
    """One configured voter's word on the active site of a group, valid for `stamp` alone (PROTOCOL R4)."""

    group: str
    subject: str
    stamp: Stamp
    down: bool
    down_seconds: float


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service as its server site hosts it. `run` names one start of the process; `gate_open` says whether clients
    can reach it through this site; `self_fenced` that the site keeps it from them for good under its stamp. `degraded`:
    protected, but not as it should be; `progress` is the part (0 to 1) of a copy under way that the peer has; `why`
    says in words what is missing to a sound protection; `outgrown`: its process nears what it may hold in memory."""

    service: str
    group: str
    run: str
    role: str
    protection: Protection
    in_sync: bool
    gate_open: bool
    self_fenced: bool = False
    checkpoint_sequence: int = 0
    checkpoint_age_seconds: float = 0.0
    degraded: bool = False
    progress: float = 0.0
    why: str = ""
    outgrown: bool = False

    @property
    def state(self) -> str:
        """The word for people and metrics: a state of Protection, or `degraded`."""
        return "degraded" if self.degraded else self.protection.value


@dataclass(frozen=True, slots=True)
class ClientsObservation:
    """Do the clients of a service get answers? Seen on their packets at the gateway. 0: those who had waited were
    answered, not long ago. A service whose clients gave up, or never had to wait, is not named."""

    service: str
    unanswered_seconds: float


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One message per site and interval, however many services. `sent_at_monotonic` is the sender's own clock: only its
    rate is used, to tell a late message from a fresh one. `heard` echoes (incarnation, sequence) of the others.
    `services` is all that the site hosts if `services_version` is 0. Else they are too many for every message, and it
    has, of some groups, all: of those that changed, and of others in turn. The version rises by one at each change."""

    site: str
    incarnation: str
    sequence: int
    sent_at_monotonic: float
    interval_seconds: float
    late: bool = False
    lateness_seconds: float = 0.0
    marks: dict[str, Stamp] = field(default_factory=dict)
    heard: dict[str, tuple[str, int]] = field(default_factory=dict)
    observations: tuple[Observation, ...] = ()
    votes: tuple[Vote, ...] = ()
    services: tuple[ServiceStatus, ...] = ()
    clients: tuple[ClientsObservation, ...] = ()
    services_version: int = 0


@dataclass(frozen=True, slots=True)
class Epoch:
    """A committed record, told directly: the quick way; the epoch store is the sure one."""

    record: GroupRecord


@dataclass(frozen=True, slots=True)
class Proof:
    """`exited`: the process of this run has ended. `fenced`: this site promises never to serve under `stamp` again.
    `final_checkpoint` is the number of one that the standby holds and that has all that clients ever saw; 0: none."""

    group: str
    service: str
    site: str
    stamp: Stamp
    run: str
    incarnation: str
    kind: ProofKind
    gate_closed: bool
    final_checkpoint: int = 0


@dataclass(frozen=True, slots=True)
class Handover:
    """The active is asked to fence itself (cut off, or an operator's wish). Never a toggle: names stamp and target."""

    group: str
    stamp: Stamp
    target: str
    reason: Reason
    asked_by: str


@dataclass(frozen=True, slots=True)
class HandoverRefused:
    """The active was asked to hand over without a loss of state, and cannot: it goes on serving."""

    site: str
    group: str
    stamp: Stamp
    reason: str


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """An operator asks for a switchover."""

    group: str
    stamp: Stamp
    target: str
    asked_by: str


@dataclass(frozen=True, slots=True)
class DrainRequest:
    """An operator wants a site to serve nobody (`drained`), or allows it again. Never a toggle."""

    group: str
    stamp: Stamp
    site: str
    drained: bool
    asked_by: str


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """An operator asks what a switchover to `target` would do now. Nothing is done."""

    group: str
    stamp: Stamp
    target: str
    asked_by: str


@dataclass(frozen=True, slots=True)
class PauseRequest:
    """An operator wants nothing to move by itself (`paused`), or allows it again. Never a toggle. Repeated while it
    holds, each switcher says that it knows."""

    group: str
    stamp: Stamp
    paused: bool
    why: str
    asked_by: str


@dataclass(frozen=True, slots=True)
class Applied:
    """A site's data plane follows `stamp`; at a gateway this is the certificate of PROTOCOL R6 (i)."""

    site: str
    group: str
    stamp: Stamp
    tunnels_present: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Serving:
    """The new active answers clients under `stamp`."""

    site: str
    group: str
    stamp: Stamp
    promote_seconds: float


@dataclass(frozen=True, slots=True)
class PromoteFailed:
    """The target could not take over and was never exposed to clients."""

    site: str
    group: str
    stamp: Stamp
    error: str


@dataclass(frozen=True, slots=True)
class CheckpointSeen:
    """One committed checkpoint, as the site that reports it saw it."""

    site: str
    service: str
    run: str
    role: str
    sequence: int
    pause_seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict or a refusal, with what it rests on. `action` is commit, refuse, ask or alarm; plan: what a move would
    do; pause, resume: this switcher knows that it may move nothing by itself, or may again."""

    site: str
    group: str
    stamp: Stamp
    action: str
    reason: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failover:
    """The report of one move. `marks` are Unix seconds: path_down, bus_silent, verdict, committed, switched, applied,
    promoted; a phase that did not happen is absent."""

    group: str
    epoch: int
    reason: Reason
    active: str
    previous: str
    marks: dict[str, float]


@dataclass(frozen=True, slots=True)
class Traffic:
    """A gap in the packets that the clients of a service receive, measured at the gateway. Downtime is the gap less the
    nominal spacing of the flow; jitter is RFC 3550 section 6.4.1."""

    site: str
    service: str
    flow: str
    downtime_seconds: float
    gap_seconds: float
    nominal_spacing_seconds: float
    lost_packets: int
    jitter_max_seconds: float
    gap_started_at: float
    gap_ended_at: float
