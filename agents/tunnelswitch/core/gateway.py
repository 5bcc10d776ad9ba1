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

# That clients are answered again is told for so long: a switcher waits for `hysteresis_seconds` of it (braking.py).
ANSWERED_SECONDS_MIN = 10.0
ANSWERED_HYSTERESES = 2


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
        self._answered_until: dict[str, float] = {}
        longest = max((follower.group.hysteresis_seconds for follower in followers), default=0.0)
        self._answered_seconds = max(ANSWERED_SECONDS_MIN, ANSWERED_HYSTERESES * longest)
        self._actions: list[Action] = []
        member.clients = self._clients
        member.marks = lambda: stored_marks(follower.gate for follower in followers)

    def _clients(self, now: float) -> tuple[ClientsObservation, ...]:
        past = [service for service, until in self._answered_until.items() if now >= until]
        for service in past:
            del self._unanswered[service], self._answered_until[service]
        return tuple(ClientsObservation(service, seconds) for service, seconds in self._unanswered.items())

    def _seen(self, seen: ClientsSeen, now: float) -> None:
        """That clients who had waited are answered is told for a while; that nobody waits is not worth its bytes."""
        self._unanswered.pop(seen.service, None)
        self._answered_until.pop(seen.service, None)
        if seen.unanswered_seconds or seen.answered:
            self._unanswered[seen.service] = seen.unanswered_seconds
        if seen.answered:
            self._answered_until[seen.service] = now + self._answered_seconds

    def receive(self, event: object, now: float) -> None:
        match event:
            case ClientsSeen():
                self._seen(event, now)
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
