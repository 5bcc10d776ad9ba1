"""Majorities are of the configured voters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch.core.facts import Heartbeat, Vote
from tunnelswitch.core.quorum import Ballot, blocking, down_votes, quorum
from tunnelswitch.core.stamp import Stamp

STAMP = Stamp(3, "d", 1)
VOTERS = ("primary", "secondary", "gateway")


def ballot(
    voter: str,
    *,
    down: bool = True,
    stamp: Stamp = STAMP,
    late: bool = False,
    at: float = 10.0,
    subject: str = "primary",
) -> Ballot:
    vote = Vote("g", subject, stamp, down, 0.1)
    return Ballot(Heartbeat(voter, "i", 1, 0.0, 0.01, late=late, votes=(vote,)), at)


def count(*ballots: Ballot, now: float = 10.01) -> tuple[str, ...]:
    return down_votes(
        {b.heartbeat.site: b for b in ballots},
        VOTERS,
        group="g",
        active="primary",
        stamp=STAMP,
        now=now,
        age_max_seconds=0.06,
    )


@given(voters=st.integers(1, 100))
def test_a_quorum_and_its_blocking_set_always_meet(voters: int) -> None:
    assert quorum(voters) + blocking(voters) == voters + 1
    assert 2 * quorum(voters) > voters


@pytest.mark.parametrize(("voters", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_quorum_is_a_majority(voters: int, needed: int) -> None:
    assert quorum(voters) == needed


def test_two_of_three_count() -> None:
    assert count(ballot("secondary"), ballot("gateway")) == ("secondary", "gateway")


@pytest.mark.parametrize(
    "other",
    [
        ballot("gateway", down=False),
        ballot("gateway", late=True),
        ballot("gateway", at=9.9),
        ballot("gateway", stamp=Stamp(3, "d", 0)),
        ballot("gateway", subject="secondary"),
        ballot("primary"),
        ballot("stranger"),
    ],
    ids=["sees it", "abstains", "stale", "another stamp", "another site", "the active itself", "no voter"],
)
def test_what_does_not_count(other: Ballot) -> None:
    assert count(ballot("secondary"), other) == ("secondary",)
