"""The agent of a gateway or a witness: a voter that keeps its mark and, at a gateway, sees the clients. It decides
nothing, and switches only where the switcher beside it does not."""

from __future__ import annotations

from tunnelswitch.core.actions import Action, Publish
from tunnelswitch.core.events import ClientsSeen
from tunnelswitch.core.facts import ClientsObservation, Heartbeat, Traffic
from tunnelswitch.core.following import Follower
from tunnelswitch.core.gate import stored_marks
from tunnelswitch.core.member import Member
from tunnelswitch.core.parting import Parts


class SiteAgent:
    """Gateway and witness: the common part of every site, its marks, and the clients' packets where there are any.

    Args:
        member: this site's part in hearing and being heard.
        followers: one per group that this site has a part in.
    """

    def __init__(self, member: Member, followers: tuple[Follower, ...]) -> None:
        self.member = member
        self.followers = followers
        self._parts = Parts(followers)
        self._unanswered: dict[str, float] = {}
        self._actions: list[Action] = []
        member.clients = self._clients
        member.marks = lambda: stored_marks(follower.gate for follower in followers)

    def _clients(self, now: float) -> tuple[ClientsObservation, ...]:
        return tuple(ClientsObservation(service, seconds) for service, seconds in self._unanswered.items())

    def receive(self, event: object, now: float) -> None:
        match event:
            case ClientsSeen() if event.unanswered_seconds or event.answered:
                self._unanswered[event.service] = event.unanswered_seconds
            case ClientsSeen():
                self._unanswered.pop(event.service, None)
            case Traffic():
                self._actions.append(Publish(event))
            case Heartbeat():
                self.member.receive(event, now)
            case _:
                self.member.receive(event, now)
                concerned = self._parts.concerned(event)
                for follower in concerned:
                    follower.receive(event, now)
                self._actions += self._parts.settle(concerned)
        self._actions += self.member.take_actions(now)

    def deadline(self) -> float:
        return min(self.member.deadline(), self._parts.deadline())

    def expire(self, now: float) -> None:
        self.member.expire(now)
        due = self._parts.due(now)
        for follower in due:
            follower.act(now)
        self._actions += self._parts.settle(due)
        self._actions += self.member.take_actions(now)

    def take_actions(self) -> tuple[Action, ...]:
        actions, self._actions = tuple(self._actions), []
        return actions
