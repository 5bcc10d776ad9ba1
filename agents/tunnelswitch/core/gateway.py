"""The gateway agent: a voter that also sees the clients. It decides nothing and switches nothing: the switcher beside
it does."""

from __future__ import annotations

from tunnelswitch.core.actions import Action, Publish
from tunnelswitch.core.events import ClientsSeen
from tunnelswitch.core.facts import ClientsObservation, Traffic
from tunnelswitch.core.member import Member


class SiteAgent:
    """Gateway and witness: the common part of every site, plus the clients' packets where there are any."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self._unanswered: dict[str, float] = {}
        self._actions: list[Action] = []
        member.clients = self._clients

    def _clients(self, now: float) -> tuple[ClientsObservation, ...]:
        return tuple(ClientsObservation(service, seconds) for service, seconds in self._unanswered.items())

    def receive(self, event: object, now: float) -> None:
        match event:
            case ClientsSeen():
                self._unanswered[event.service] = event.unanswered_seconds
            case Traffic():
                self._actions.append(Publish(event))
            case _:
                self.member.receive(event, now)
        self._actions.extend(self.member.take_actions(now))

    def deadline(self) -> float | None:
        return self.member.deadline()

    def expire(self, now: float) -> None:
        self.member.expire(now)
        self._actions.extend(self.member.take_actions(now))

    def take_actions(self) -> tuple[Action, ...]:
        actions, self._actions = tuple(self._actions), []
        return actions
