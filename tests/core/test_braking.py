"""A service that answers nobody in either copy: it is moved once, and then left where it is for a person to look at.

Whatever may have changed since makes it worth another move; so does not knowing.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from stories import SERVICE, SWITCHER, TWO_GATEWAYS, Story, in_good_times

from tunnelswitch.core import concluding
from tunnelswitch.core.events import ClientsSeen
from tunnelswitch.core.facts import Path, Reason
from tunnelswitch_lab.simulator.names import switcher_at
from tunnelswitch_lab.simulator.setup import GROUP, SERVICES

THERE, BACK = ("secondary", Reason.CUT_OFF), ("primary", Reason.CUT_OFF)
WHY = "clients of pbx got no answer from primary either, and secondary was made active for that"
# A standby begins anew, is in sync, and clients have waited: that would be the next move.
LONG_SECONDS = 1.6


def hung(group: object = GROUP) -> Story:
    """Both copies hang, and the one move that is to be made was made."""
    world = in_good_times(group)  # type: ignore[arg-type]
    world.hang(SERVICE, hangs=True)
    world.run(LONG_SECONDS)
    assert world.moves == [THERE]
    assert world.record.in_sync, "nothing else was in the way"
    return world


def answer_for(world: Story, seconds: float) -> None:
    world.hang(SERVICE, hangs=False)
    world.run(seconds)
    world.hang(SERVICE, hangs=True)
    world.run(LONG_SECONDS)


def decider(world: Story) -> object:
    return world.machine(SWITCHER).deciders[0]


def test_it_is_moved_once_and_then_the_switcher_says_once_why_it_stays() -> None:
    world = hung()
    assert WHY in world.reasons("refuse")
    settled_at = world.now
    world.run(LONG_SECONDS)
    assert world.moves == [THERE]
    assert not world.reasons("refuse", settled_at), "it was said"
    assert "start the service anew at secondary (by hand: tunnelswitch switchover)" in world.reasons("refuse")
    assert decider(world).in_vain is True  # type: ignore[attr-defined]


def test_a_service_that_has_answered_for_a_while_is_left_again_when_it_hangs() -> None:
    world = hung()
    answer_for(world, GROUP.hysteresis_seconds + 0.5)
    assert world.moves == [THERE, BACK]
    world.run(LONG_SECONDS)
    assert world.moves == [THERE, BACK], "and then there is no better one again"


def test_an_answer_now_and_then_is_no_service() -> None:
    world = hung()
    for _ in range(3):
        answer_for(world, GROUP.hysteresis_seconds - 0.5)
    assert world.moves == [THERE]


def test_clients_who_give_up_were_not_answered() -> None:
    world = hung()
    world._clients.answer(frozenset())  # who looks on is quiet: what they are told is told here
    world._clients._complained.clear()
    world.tell("gateway", ClientsSeen(SERVICE, 0.0))
    world.run(GROUP.hysteresis_seconds + 1.0)
    world.tell("gateway", ClientsSeen(SERVICE, 0.5))
    world.run(LONG_SECONDS)
    assert world.moves == [THERE]


def test_a_service_started_anew_gets_its_one_move() -> None:
    world = hung()
    old = world.copies["secondary"].run
    world.copies["secondary"].run = world.copies["primary"].synced_with = "pbx-anew"
    world.service._parents |= {"pbx-anew": old, world.copies["primary"].run: "pbx-anew"}
    world.service.say()
    world.run(LONG_SECONDS)
    assert world.moves == [THERE, BACK]


def test_the_end_of_the_hung_copy_is_a_proof_as_ever() -> None:
    world = hung()
    world.service.crash("secondary")
    world.run(0.5)
    assert world.moves == [THERE, ("primary", Reason.PROOF)]
    world.run(LONG_SECONDS)
    assert world.moves[2:] == [THERE], "moved for another reason, it is worth one more"


def test_a_person_may_move_it() -> None:
    world = hung()
    world.ask("primary")
    world.run(0.5)
    assert world.moves == [THERE, ("primary", Reason.OPERATOR)]


def test_a_path_that_is_down_is_another_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    world = hung()
    monkeypatch.setattr(concluding, "PATH_DOWN_SECONDS", 1.0)
    world.network.say("gateway", "secondary", Path.DOWN)
    world.run(1.2)
    assert world.moves == [THERE, BACK]
    assert "sees the path to secondary down" in " ".join(world.record.evidence)


def test_clients_who_waited_because_their_path_was_down_say_nothing_of_the_copy() -> None:
    world = in_good_times()
    world.hang(SERVICE, hangs=True)
    world.network.say("gateway", "primary", Path.DOWN)
    world.run(0.6)
    assert world.moves == [THERE]
    world.network.changed()
    world.run(LONG_SECONDS)
    assert world.moves == [THERE, BACK]
    world.run(LONG_SECONDS)
    assert world.moves == [THERE, BACK]


def test_failback_does_not_begin_it_anew() -> None:
    world = hung(replace(GROUP, failback_after_seconds=1.0))
    world.run(3.0)
    assert world.moves == [THERE]


@pytest.mark.parametrize("name", [SWITCHER, "gateway"])
def test_who_was_started_meanwhile_cannot_know_and_allows_one_more(name: str) -> None:
    world = hung()
    world.start(name)
    world.run(LONG_SECONDS)
    assert world.moves == [THERE, BACK]


def test_another_service_of_the_group_is_worth_a_move_of_its_own() -> None:
    world = hung(replace(GROUP, services=SERVICES))
    world.hang("db", hangs=True)
    world.run(LONG_SECONDS)
    assert world.moves == [THERE, BACK]
    world.run(LONG_SECONDS)
    assert world.moves == [THERE, BACK]


def see(world: Story, answering: dict[str, str], seconds: float) -> None:
    """Clients of each gateway are answered where it is said for them, and nowhere else."""
    until = world.now + seconds
    while world.now < until:
        for gateway, site in answering.items():
            answered = site == world.record.active
            world.tell(gateway, ClientsSeen(SERVICE, 0.0 if answered else 0.3, answered))
        world.run(0.05)


def test_each_gateway_asks_for_its_own_clients() -> None:
    """Those of one are helped by no copy; those of the other were served well, until they were moved with them."""
    world = in_good_times(TWO_GATEWAYS)
    see(world, {"gateway": "primary", "branch": "nowhere"}, LONG_SECONDS)
    assert [site for site, _ in world.moves] == ["secondary", "primary"], "back to where some are answered"
    see(world, {"gateway": "primary", "branch": "nowhere"}, 3 * LONG_SECONDS)
    assert len(world.moves) == 2


def test_clients_of_one_gateway_whom_no_copy_helps_move_those_of_the_other_once() -> None:
    world = in_good_times(TWO_GATEWAYS)
    only_branch = {"branch": "nowhere"}
    see(world, only_branch, 3 * LONG_SECONDS)
    assert [site for site, _ in world.moves] == ["secondary"]


def test_each_of_two_gateways_moves_it_once_at_most() -> None:
    world = in_good_times(TWO_GATEWAYS)
    world.hang(SERVICE, hangs=True)
    world.run(3 * LONG_SECONDS)
    assert 1 <= len(world.moves) <= 2
    moves = len(world.moves)
    world.start(switcher_at("branch"))
    world.run(3 * LONG_SECONDS)
    assert len(world.moves) <= moves + 1
