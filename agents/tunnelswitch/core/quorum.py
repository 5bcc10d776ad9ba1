"""From votes to a verdict (PROTOCOL R4). Majorities are of the CONFIGURED voters, whoever is present.

The down-vote majority guards against false alarms; safety rests on compare-and-set, guard, gate and certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field

from tunnelswitch.core.facts import Heartbeat, ServiceStatus, Vote
from tunnelswitch.core.stamp import Stamp


def quorum(voters: int) -> int:
    """Q: how many of N configured voters must agree that the active is down."""
    return voters // 2 + 1


def blocking(voters: int) -> int:
    """K = N - Q + 1: while so many see the active (itself among them), no Q can say that it is down."""
    return voters - quorum(voters) + 1


@dataclass(frozen=True, slots=True)
class Ballot:
    """The last word of one voter, and when it came. By group, because it is about many of them and each asks. What is
    the same as in the one `before`, of the same site, is not worked out anew."""

    heartbeat: Heartbeat
    received_at: float
    before: InitVar[Ballot | None] = None
    _votes: dict[str, Vote] = field(init=False, repr=False, compare=False)
    _statuses: dict[str, list[ServiceStatus]] = field(init=False, repr=False, compare=False)
    _waits: dict[str, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self, before: Ballot | None) -> None:
        votes = {vote.group: vote for vote in reversed(self.heartbeat.votes)}
        statuses: dict[str, list[ServiceStatus]] = {}
        if before is not None and before.heartbeat.services is self.heartbeat.services:
            statuses = before._statuses
        else:
            for status in self.heartbeat.services:
                statuses.setdefault(status.group, []).append(status)
        waits = {seen.service: seen.unanswered_seconds for seen in self.heartbeat.clients}
        object.__setattr__(self, "_votes", votes)
        object.__setattr__(self, "_statuses", statuses)
        object.__setattr__(self, "_waits", waits)

    def vote(self, group: str) -> Vote | None:
        """What it says of a group's active."""
        return self._votes.get(group)

    def statuses(self, group: str) -> Sequence[ServiceStatus]:
        """What it hosts of a group."""
        return self._statuses.get(group, ())

    @property
    def somebody_waits(self) -> bool:
        """Are there clients, of any service, that wait there for an answer?"""
        return any(self._waits.values())

    def unanswered_seconds(self, service: str) -> float:
        """For how long clients of a service wait there for an answer."""
        return self._waits.get(service, 0.0)

    def is_answered(self, service: str) -> bool:
        """Was the last client there that had to wait for a service answered in the end, and nobody waits now?"""
        return self._waits.get(service) == 0.0


class Ballots:
    """The last one of every site."""

    def __init__(self) -> None:
        self._last: dict[str, Ballot] = {}

    def take(self, heartbeat: Heartbeat, now: float) -> Ballot:
        """A heartbeat that came `now`, as a ballot."""
        ballot = self._last[heartbeat.site] = Ballot(heartbeat, now, self._last.get(heartbeat.site))
        return ballot


def down_votes(
    ballots: Mapping[str, Ballot],
    voters: Iterable[str],
    *,
    group: str,
    active: str,
    stamp: Stamp,
    now: float,
    age_max_seconds: float,
) -> tuple[str, ...]:
    """The configured voters whose fresh word, for exactly this stamp, is that `active` is down.

    An abstainer, a stale word, a word on another stamp and the active itself do not count.
    """
    counted = []
    for voter in voters:
        ballot = ballots.get(voter)
        if voter == active or ballot is None or ballot.heartbeat.late:
            continue
        if now - ballot.received_at > age_max_seconds:
            continue
        vote = ballot.vote(group)
        if vote is not None and vote.down and vote.subject == active and vote.stamp == stamp:
            counted.append(voter)
    return tuple(counted)
