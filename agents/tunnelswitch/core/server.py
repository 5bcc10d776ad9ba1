"""The server agent: the same on every server site; the records say which one is active."""

from __future__ import annotations

from itertools import chain

from tunnelswitch.core.actions import Action
from tunnelswitch.core.facts import SERVICES_EVERY_BEAT_MAX, Heartbeat, ServiceStatus
from tunnelswitch.core.following import Follower
from tunnelswitch.core.gate import stored_marks
from tunnelswitch.core.hosting import HostedGroup
from tunnelswitch.core.member import Member
from tunnelswitch.core.parting import Parts
from tunnelswitch.core.quorum import Ballots

# Of many services the numbers and ages of checkpoints are worked out so seldom; all else is always as it is.
AGE_MAX_SECONDS = 1.0


class ServerAgent:
    """A member that hosts groups.

    Args:
        member: this site's part in hearing and being heard.
        hosted: one per group that this site may serve.
        followers: one per group that it only votes on.
    """

    def __init__(self, member: Member, hosted: tuple[HostedGroup, ...], followers: tuple[Follower, ...] = ()) -> None:
        self.member = member
        self.hosted = hosted
        parts: tuple[HostedGroup | Follower, ...] = (*hosted, *followers)
        self._parts = Parts(parts)
        self._actions: list[Action] = []
        many = sum(len(part.group.services) for part in hosted) > SERVICES_EVERY_BEAT_MAX
        self._age_max_seconds = AGE_MAX_SECONDS if many else 0.0
        self._ballots = Ballots()
        self._said: list[tuple[ServiceStatus, ...]] = []
        self._all_said: tuple[ServiceStatus, ...] = ()
        member.services = self._services
        member.marks = lambda: stored_marks(part.gate for part in parts)

    def _services(self, now: float) -> tuple[ServiceStatus, ...]:
        said = [group.statuses(now, age_max_seconds=self._age_max_seconds) for group in self.hosted]
        if said != self._said:
            self._said, self._all_said = said, tuple(chain.from_iterable(said))
        return self._all_said

    def fit(self, now: float) -> bool:
        """May this host go on: is no gate open here that should have been closed by now (PROTOCOL A3)?"""
        return all(group.isolation.fit(group.record, now) for group in self.hosted)

    def receive(self, event: object, now: float) -> None:
        due = self._due(now)
        fresh = self.member.receive(event, now)
        if isinstance(event, Heartbeat):
            if fresh is None:
                return
            event = self._ballots.take(event, now)
        concerned = self._parts.concerned(event)
        for part in concerned:
            part.receive(event, now)
        others = tuple(part for part in due if part not in concerned)
        for part in others:
            part.act(now)
        self._collect((*concerned, *others), now)

    def deadline(self) -> float:
        return min(self.member.deadline(), self._parts.deadline())

    def expire(self, now: float) -> None:
        due = self._due(now)
        self.member.expire(now)
        for part in due:
            part.act(now)
        self._collect(due, now)

    def _due(self, now: float) -> tuple[HostedGroup | Follower, ...]:
        """With every beat of this site all groups look: when to close follows from time alone."""
        return self._parts.everybody if self.member.deadline() <= now else self._parts.due(now)

    def _collect(self, touched: tuple[HostedGroup | Follower, ...], now: float) -> None:
        self._actions += self._parts.settle(touched)
        self._actions += self.member.take_actions(now)

    def take_actions(self) -> tuple[Action, ...]:
        actions, self._actions = tuple(self._actions), []
        return actions
