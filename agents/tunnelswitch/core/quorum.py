"""From votes to a verdict (PROTOCOL R4). Majorities are of the CONFIGURED voters, whoever is present.

The down-vote majority guards against false alarms; safety rests on compare-and-set, guard, gate and certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tunnelswitch.core.facts import Heartbeat, Vote
from tunnelswitch.core.stamp import Stamp


def quorum(voters: int) -> int:
    """Q: how many of N configured voters must agree that the active is down."""
    return voters // 2 + 1


def blocking(voters: int) -> int:
    """K = N - Q + 1: while so many see the active (itself among them), no Q can say that it is down."""
    return voters - quorum(voters) + 1


@dataclass(frozen=True, slots=True)
class Ballot:
    """The last word of one voter, and when it came."""

    heartbeat: Heartbeat
    received_at: float

    def vote(self, group: str) -> Vote | None:
        return next((vote for vote in self.heartbeat.votes if vote.group == group), None)


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
