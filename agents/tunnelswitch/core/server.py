"""The server agent: the same on every server site; the records say which one is active."""

from __future__ import annotations

from tunnelswitch.core.actions import Action
from tunnelswitch.core.facts import Heartbeat, ServiceStatus
from tunnelswitch.core.following import Follower
from tunnelswitch.core.gate import stored_marks
from tunnelswitch.core.hosting import HostedGroup
from tunnelswitch.core.member import Member


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
        self._parts: tuple[HostedGroup | Follower, ...] = (*hosted, *followers)
        self._actions: list[Action] = []
        member.services = self._services
        member.marks = lambda: stored_marks(part.gate for part in self._parts)

    def _services(self, now: float) -> tuple[ServiceStatus, ...]:
        return tuple(status for group in self.hosted for status in group.statuses(now))

    def fit(self, now: float) -> bool:
        """May this host go on: is no gate open here that should have been closed by now (PROTOCOL A3)?"""
        return all(group.fit(now) for group in self.hosted)

    def receive(self, event: object, now: float) -> None:
        fresh = self.member.receive(event, now)
        if isinstance(event, Heartbeat) and fresh is None:
            return
        for part in self._parts:
            part.receive(event, now)
        self._collect(now)

    def deadline(self) -> float:
        first = self.member.deadline()
        for part in self._parts:
            time = part.deadline()
            if time is not None and time < first:
                first = time
        return first

    def expire(self, now: float) -> None:
        self.member.expire(now)
        for part in self._parts:
            part.act(now)
        self._collect(now)

    def _collect(self, now: float) -> None:
        for part in self._parts:
            self._actions.extend(part.take_actions())
        self._actions.extend(self.member.take_actions(now))

    def take_actions(self) -> tuple[Action, ...]:
        actions, self._actions = tuple(self._actions), []
        return actions
