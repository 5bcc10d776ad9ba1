"""The server agent: the same on every server site; the records say which one is active."""

from __future__ import annotations

from tunnelswitch.core.actions import Action
from tunnelswitch.core.facts import Heartbeat, ServiceStatus
from tunnelswitch.core.hosting import HostedGroup
from tunnelswitch.core.member import Member


class ServerAgent:
    """A member that hosts groups.

    Args:
        member: this site's part in hearing and being heard.
        hosted: one per group that this site may serve.
    """

    def __init__(self, member: Member, hosted: tuple[HostedGroup, ...]) -> None:
        self.member = member
        self.hosted = hosted
        self._actions: list[Action] = []
        member.services = self._services

    def _services(self, now: float) -> tuple[ServiceStatus, ...]:
        return tuple(status for group in self.hosted for status in group.statuses(now))

    def fit(self, now: float) -> bool:
        """May this host go on: is no gate open here that should have been closed by now (PROTOCOL A3)?"""
        return all(group.fit(now) for group in self.hosted)

    def receive(self, event: object, now: float) -> None:
        fresh = self.member.receive(event, now)
        if isinstance(event, Heartbeat) and fresh is None:
            return
        for group in self.hosted:
            group.receive(event, now)
        self._collect(now)

    def deadline(self) -> float | None:
        times = [self.member.deadline()]
        times += [time for group in self.hosted if (time := group.deadline()) is not None]
        return min(times)

    def expire(self, now: float) -> None:
        self.member.expire(now)
        for group in self.hosted:
            group.act(now)
        self._collect(now)

    def _collect(self, now: float) -> None:
        for group in self.hosted:
            self._actions.extend(group.take_actions())
        self._actions.extend(self.member.take_actions(now))

    def take_actions(self) -> tuple[Action, ...]:
        actions, self._actions = tuple(self._actions), []
        return actions
