"""One site's Open vSwitch: what OVSDB holds, and what vswitchd makes of it a moment later.

A transaction is checked against its guard when OVSDB takes it, which may be after its caller gave up, and is applied
when vswitchd follows. OVSDB can be gone, slow, or restored from an old file; vswitchd can hang.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunnelswitch.core.actions import ApplyTunnels
from tunnelswitch.core.events import DataPlaneSeen, SwitchApplied, SwitchConflict, SwitchFailed
from tunnelswitch.core.stamp import Stamp
from tunnelswitch_lab.simulator.process import Answer, Clock
from tunnelswitch_lab.simulator.timeline import Timeline

Result = SwitchApplied | SwitchConflict | SwitchFailed
SNAPSHOTS_MAX = 8


@dataclass(frozen=True, slots=True)
class Taken:
    """A transaction that OVSDB took, and when it had been sent to it."""

    site: str
    group: str
    before: Stamp | None
    stamp: Stamp
    was_present: frozenset[str]
    present: frozenset[str]
    sent_at: float


class Session:
    """One process' connection to a switch's OVSDB. `lands_at`: when the last that was sent through it lands."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self.lands_at = 0.0


class Switch:
    """OVSDB and vswitchd of one site.

    Attributes:
        present: the tunnel ends that OVSDB holds; `followed` those that the data plane has.
        commit_seconds, follow_seconds: how long each part takes now.
        hung: vswitchd follows nothing.
        unplugged: ends that somebody removed by hand, and nobody has put back yet.
    """

    def __init__(self, site: str, timeline: Timeline, commit_seconds: float, follow_seconds: float) -> None:
        self.site = site
        self.up = True
        self.hung = False
        self.stored: dict[str, Stamp] = {}
        self.present: frozenset[str] = frozenset()
        self.followed: frozenset[str] = frozenset()
        self.commit_seconds = self.usual_commit_seconds = commit_seconds
        self.follow_seconds = follow_seconds
        self.on_taken: Callable[[Taken], None] = lambda taken: None
        self.on_change: Callable[[str], None] = lambda site: None
        self.on_followed: Callable[[], None] = lambda: None
        self.unplugged: set[str] = set()
        self.snapshots: list[tuple[dict[str, Stamp], frozenset[str]]] = []
        self._timeline = timeline
        self._waiting: list[Callable[[], None]] = []
        self._life = 0

    def seen(self) -> DataPlaneSeen:
        return DataPlaneSeen(dict(self.stored), self.present)

    def begin(self, stored: dict[str, Stamp], present: frozenset[str]) -> None:
        """As it was left when the story begins."""
        self.stored, self.present, self.followed = dict(stored), present, present

    # ------------------------------------------------------------------ transactions

    def session(self) -> Session:
        """A connection of one process: what goes through it lands in the order in which it was sent."""
        return Session(self)

    def apply(self, action: ApplyTunnels, clock: Clock, session: Session) -> Answer[Result]:
        """See `adapters.ovs_tunnels`; times in the answer are by the caller's clock."""
        answer: Answer[Result] = Answer()
        submitted_at = clock.local()
        if not self.up:
            answer.set(SwitchFailed(action.group, "OVSDB is gone"))
        elif self._is_older(action):
            answer.set(SwitchFailed(action.group, f"{action.stamp} is older than {action.expected}"))
        else:
            session.lands_at = max(session.lands_at, self._timeline.now + self.commit_seconds)
            self._timeline.at(
                session.lands_at, self._take, action, answer, clock, submitted_at, self._life, self._timeline.now
            )
            late = SwitchFailed(action.group, "no answer in time")
            self._timeline.after(action.deadline_seconds, answer.set, late)
        return answer

    @staticmethod
    def _is_older(action: ApplyTunnels) -> bool:
        return action.expected is not None and action.stamp < action.expected

    def _take(
        self, action: ApplyTunnels, answer: Answer[Result], clock: Clock, submitted_at: float, life: int, sent_at: float
    ) -> None:
        if not self.up or life != self._life:
            answer.set(SwitchFailed(action.group, "OVSDB is gone"))
            return
        before = self.stored.get(action.group)
        if before != action.expected:
            answer.set(SwitchConflict(action.group, before, self.present))
            return
        was_present = self.present
        removed = {end.interface for end in action.remove}
        present = frozenset((was_present - removed) | {end.interface for end in action.add})
        if before != action.stamp or present != was_present:
            self._remember()
            self.stored[action.group], self.present = action.stamp, present
            self.on_taken(Taken(self.site, action.group, before, action.stamp, was_present, present, sent_at))
            self.unplugged -= present
            self.on_change(self.site)
        committed_at = clock.local()

        def applied() -> None:
            held = self.present  # as it is when the answer is made, which may be later than the transaction
            answer.set(SwitchApplied(action.group, action.stamp, held, submitted_at, committed_at, clock.local()))

        self._follow_later(applied)

    def _follow_later(self, told: Callable[[], None]) -> None:
        self._waiting.append(told)
        self._timeline.after(self.follow_seconds, self._follow)

    def _follow(self) -> None:
        if self.hung:
            return
        if self.followed != self.present:
            self.followed = self.present
            self.on_followed()
        waiting, self._waiting = self._waiting, []
        for told in waiting:
            told()

    # ------------------------------------------------------------------ faults

    def hang(self, *, hung: bool) -> None:
        self.hung = hung
        if not hung:
            self._follow()

    def server_ended(self) -> None:
        """What was sent to this ovsdb-server and not taken yet ends with it."""
        self._life += 1

    def unplug(self, interface: str) -> None:
        """Somebody removes a port by hand."""
        self._remember()
        self.present -= {interface}
        self.unplugged.add(interface)
        self.on_change(self.site)
        self._timeline.after(self.follow_seconds, self._follow)

    def darken(self) -> None:
        """Between ovsdb-server and vswitchd `tunnelswitch darken` takes the client tunnels away."""
        self.present = frozenset()

    def restore(self, back: int) -> bool:
        """Open vSwitch starts again from an old file, dark. Returns whether there was one."""
        if not self.snapshots:
            return False
        stored, present = self.snapshots[-min(back, len(self.snapshots))]
        self.stored, self.present = dict(stored), present
        self.server_ended()
        self.darken()
        self.followed = self.present
        self.on_followed()
        self.on_change(self.site)
        self._timeline.after(self.follow_seconds, self._follow)
        return True

    def _remember(self) -> None:
        self.snapshots.append((dict(self.stored), self.present))
        del self.snapshots[:-SNAPSHOTS_MAX]
