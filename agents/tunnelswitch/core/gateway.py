"""The agent of a gateway or a witness: a voter that keeps its mark and, at a gateway, sees the clients. It decides
nothing, and switches only where the switcher beside it does not."""

from __future__ import annotations

from tunnelswitch.core.actions import Action, Publish
from tunnelswitch.core.events import ClientsSeen
from tunnelswitch.core.facts import ClientsObservation, Heartbeat, Traffic
from tunnelswitch.core.following import Follower
from tunnelswitch.core.gate import stored_marks
from tunnelswitch.core.member import Member


class SiteAgent:
    """Gateway and witness: the common part of every site, its marks, and the clients' packets where there are any.

    Args:
        member: this site's part in hearing and being heard.
        followers: one per group that this site has a part in.
    """

    def __init__(self, member: Member, followers: tuple[Follower, ...]) -> None:
        self.member = member
        self.followers = followers
        self._unanswered: dict[str, float] = {}
        self._actions: list[Action] = []
        member.clients = self._clients
        member.marks = lambda: stored_marks(follower.gate for follower in followers)

    def _clients(self, now: float) -> tuple[ClientsObservation, ...]:
        return tuple(ClientsObservation(service, seconds) for service, seconds in self._unanswered.items())

    def receive(self, event: object, now: float) -> None:
        match event:
            case ClientsSeen():
                self._unanswered[event.service] = event.unanswered_seconds
            case Traffic():
                self._actions.append(Publish(event))
            case Heartbeat():
                self.member.receive(event, now)
            case _:
                self.member.receive(event, now)
                for follower in self.followers:
                    follower.receive(event, now)
        self._collect(now)

    def deadline(self) -> float:
        first = self.member.deadline()
        for follower in self.followers:
            time = follower.deadline()
            if time is not None and time < first:
                first = time
        return first

    def expire(self, now: float) -> None:
        self.member.expire(now)
        for follower in self.followers:
            follower.act(now)
        self._collect(now)

    def _collect(self, now: float) -> None:
        for follower in self.followers:
            self._actions.extend(follower.take_actions())
        self._actions.extend(self.member.take_actions(now))

    def take_actions(self) -> tuple[Action, ...]:
        actions, self._actions = tuple(self._actions), []
        return actions
