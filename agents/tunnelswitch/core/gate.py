"""Bringing one site's client tunnels to what a stamp asks for: guarded, retried, reconciled (PROTOCOL, "The switch").

Used by the switcher at its gateway and by the server agent for its own ends. The stamp stored in OVSDB is the guard:
stored lower, switch and store ours; equal, repair; higher, we are fenced and nothing is sent. What OVSDB was last seen
to hold is believed over any memory of what was done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tunnelswitch.core.actions import ApplyTunnels
from tunnelswitch.core.events import DataPlaneLost, DataPlaneSeen, SwitchApplied, SwitchConflict, SwitchFailed
from tunnelswitch.core.facts import GroupRecord
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import Group, Tunnel, wanted_ends

CONFLICTS_MAX = 5
RECONCILE_SECONDS = 1.0
RETRY_SECONDS = 0.05
# The adapter keeps its own deadline; past this its answer is no longer waited for.
ABANDON_FACTOR = 3.0


def running_at(record: GroupRecord, site: str) -> str | None:
    """Whose tunnels the gateway `site` has to hold under `record`: nobody's if the record does not name it."""
    return record.active if site in record.gateways else None


def stored_marks(gates: Iterable[Gate]) -> dict[str, Stamp]:
    """The stamps that this site's OVSDB holds, by group: its marks (PROTOCOL R3)."""
    return {gate.group.name: gate.stored for gate in gates if gate.seen and gate.stored is not None}


@dataclass(slots=True)
class _Sent:
    action: ApplyTunnels
    abandon_at: float


class Gate:
    """One group's client tunnel ends at one site.

    Args:
        ends: every end the site may ever hold for the group.
        deadline_seconds: limit of one transaction, data plane included.
    """

    def __init__(self, group: Group, site: str, ends: tuple[Tunnel, ...], *, deadline_seconds: float = 1.0) -> None:
        self.group = group
        self.site = site
        self.ends = {end.interface: end for end in ends}
        self.deadline_seconds = deadline_seconds
        self.seen = False
        self.stored: Stamp | None = None
        self.present: frozenset[str] = frozenset()
        self.broken: frozenset[str] = frozenset()
        self.foreign: frozenset[str] = frozenset()
        self.applied: Stamp | None = None
        self.error = ""
        self._carries = False  # the data plane may still have what OVSDB holds no longer
        self._want: tuple[Stamp, str | None] | None = None
        self._sent: _Sent | None = None
        self._conflicts = 0
        self._retry_at = 0.0
        self._wanted: tuple[frozenset[str], str | None, frozenset[str]] | None = None

    @property
    def open(self) -> bool:
        """Does at least one client tunnel end exist here?"""
        return bool(self.present)

    @property
    def closed(self) -> bool:
        """Is it known that nobody is carried here? OVSDB without a tunnel end is not yet a data plane without one."""
        return self.seen and not self.present and not self._carries

    @property
    def fenced(self) -> bool:
        """OVSDB holds a higher stamp than the one asked for: somebody newer has decided."""
        return self._want is not None and self.stored is not None and self.stored > self._want[0]

    def asked(self, stamp: Stamp, running: str | None) -> bool:
        """Is that what was last asked for?"""
        return self._want == (stamp, running)

    def asked_for(self, running: str) -> bool:
        """Is it the tunnels of `running` that were last asked for, under whatever stamp?"""
        return self._want is not None and self._want[1] == running

    def settled(self, stamp: Stamp) -> bool:
        """Is the data plane known to follow `stamp` just as last asked for?"""
        return self._sent is None and self.applied == stamp and self._want is not None and self._want[0] == stamp

    def holds(self, stamp: Stamp, running: str | None) -> bool:
        """Does OVSDB hold `stamp` and the tunnels of `running`, whoever wrote them?"""
        return self.stored == stamp and not self.broken and self._wanted_ends(running) == self.present

    def want(self, stamp: Stamp, running: str | None) -> None:
        """Ask for the tunnels of `running` (None: nobody's) under `stamp`."""
        if self._want == (stamp, running):
            return
        self._want = (stamp, running)
        self.applied = None
        self._conflicts = 0
        self._retry_at = 0.0

    def rest(self) -> None:
        """Ask for nothing: what is not under way yet is not tried again."""
        self._want = self.applied = None

    def receive(self, event: object, now: float) -> None:
        """Take what OVSDB was seen to hold, and what this group's transactions came to; all else is ignored."""
        match event:
            case DataPlaneSeen():
                self._saw(event)
            case DataPlaneLost():
                self._lost()
            case SwitchApplied() if event.group == self.group.name:
                self._switched(event)
            case SwitchConflict() if event.group == self.group.name:
                self._conflicted(event, now)
            case SwitchFailed() if event.group == self.group.name:
                self._failed(event, now)
            case _:
                pass

    def _saw(self, seen: DataPlaneSeen) -> None:
        self.seen = True
        self.stored = seen.stored.get(self.group.name)
        self.present = seen.present & self.ends.keys()
        self.broken = seen.broken & self.ends.keys()
        self.foreign = seen.foreign & self.ends.keys()
        if self.present and not self._carries:
            self._carries, self.applied = True, None

    def _lost(self) -> None:
        self.seen = False
        self.applied = None  # what the data plane does behind a lost OVSDB is to be confirmed anew

    def _switched(self, result: SwitchApplied) -> None:
        """The answer of the transaction, whether it was still waited for or not: it describes what OVSDB holds."""
        self._sent = None
        self.error = ""
        if self.stored is None or result.stamp >= self.stored:
            self.stored, self.present = result.stamp, result.present & self.ends.keys()
            self.broken = frozenset()
            self._carries = bool(self.present)
        if (
            self._want is not None
            and self._want[0] == result.stamp
            and self._wanted_ends(self._want[1]) == self.present
        ):
            self.applied = result.stamp

    def _conflicted(self, result: SwitchConflict, now: float) -> None:
        self._sent = None
        self.stored, self.present = result.stored, result.present & self.ends.keys()
        self._conflicts += 1
        if self._conflicts >= CONFLICTS_MAX:
            self._retry_at, self._conflicts = now + RECONCILE_SECONDS, 0

    def _failed(self, result: SwitchFailed, now: float) -> None:
        self._sent = None
        self.error = result.error
        self._retry_at = now + RETRY_SECONDS

    def _wanted_ends(self, running: str | None) -> frozenset[str]:
        """The ends to hold, given those that are there: asked at every event, and changes with few of them."""
        known = self._wanted
        if known is None or known[0] is not self.present or known[1] != running:
            ends = tuple(self.ends.values())
            wanted = wanted_ends(self.group, self.site, ends, self.present, running=running)
            known = self._wanted = (self.present, running, wanted)
        return known[2]

    def deadline(self) -> float | None:
        if self._sent is not None:
            return self._sent.abandon_at
        if self.applied is not None or not self._retry_at:  # first: it is asked at every event
            return None
        return self._retry_at if self.seen and self._want is not None and not self.fenced else None

    def step(self, now: float) -> ApplyTunnels | None:
        """The next transaction, or None: nothing to do, not now, or not allowed."""
        if self._sent is not None:
            if now < self._sent.abandon_at:
                return None
            self._sent, self.error = None, "no answer from OVSDB in time"
        if self._want is None or not self.seen or now < self._retry_at or self.fenced:
            return None
        stamp, running = self._want
        wanted = self._wanted_ends(running)
        if self.applied == stamp and self.stored == stamp and wanted == self.present and not self.broken:
            return None
        # Whatever is not wanted must go, seen or not: a transaction that was given up may still land.
        add, remove = (wanted - self.present) | (wanted & self.broken), self.ends.keys() - wanted
        # OVSDB holding the right rows is not the data plane following them: also an empty change is confirmed once.
        self.applied = None
        if add & self.foreign:
            self.error = f"interface {min(add & self.foreign)} exists and is not ours"
            self._retry_at = now + RECONCILE_SECONDS
            return None
        action = ApplyTunnels(
            group=self.group.name,
            stamp=stamp,
            expected=self.stored,
            add=tuple(self.ends[name] for name in sorted(add)),
            remove=tuple(self.ends[name] for name in sorted(remove)),
            deadline_seconds=self.deadline_seconds,
        )
        self._sent = _Sent(action, now + ABANDON_FACTOR * self.deadline_seconds)
        return action
