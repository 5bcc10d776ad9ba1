"""Marks, and gateways whose switcher is dead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunnelswitch_lab.simulator.names import switcher_at
from tunnelswitch_lab.simulator.running import unlogged
from tunnelswitch_lab.simulator.setup import GROUP, Setup
from tunnelswitch_lab.simulator.world import World

TWO_GATEWAYS = Setup(group=replace(GROUP, gateways=("gateway", "branch")))
WITNESS = Setup(group=replace(GROUP, voters=("primary", "secondary", "witness")), witnesses=("witness",))


def begun(setup: Setup) -> World:
    world = World(setup)
    world.start()
    world.run(0.5)
    return world


@pytest.fixture(autouse=True)
def _quiet() -> object:
    with unlogged():
        yield


def test_a_gateway_without_a_switcher_follows_all_the_same() -> None:
    world = begun(TWO_GATEWAYS)
    world.processes[switcher_at("branch")].kill()
    world.lose_host("primary")
    world.run(1.5)
    assert world.switches["branch"].present == {"t3-pbx"}
    assert {one.gateway for one in world.reached} == {"gateway", "branch"}


def test_the_only_switcher_may_die_right_after_its_commit() -> None:
    world = begun(Setup())
    world.lose_host("primary")
    while world.record.active == "primary":
        world.run(0.001)
    world.processes[switcher_at("gateway")].kill()
    world.run(1.5)
    assert world.answering_copies() == {"secondary"}


def test_an_agent_does_not_light_a_gateway_on_a_word_that_nobody_confirms() -> None:
    world = begun(Setup())
    world.processes[switcher_at("gateway")].kill()
    world.store.up = False
    world.switches["gateway"].darken()
    world.switches["gateway"].on_change("gateway")
    world.run(2.0)
    assert world.switches["gateway"].present == frozenset()
    world.store.up = True
    world.run(2.0)
    assert world.answering_copies() == {"primary"}


def test_a_witness_keeps_its_mark_through_a_loss_of_power() -> None:
    world = begun(WITNESS)
    stamp = world.record.stamp
    assert world.switches["witness"].stored == {"voip": stamp}
    world.lose_host("witness")
    world.store.up = False
    world.boot("witness")
    world.run(0.1)
    assert world.processes["witness"].machine.member.marks() == {"voip": stamp}


def test_a_site_whose_ovsdb_is_gone_tells_no_mark() -> None:
    world = begun(WITNESS)
    world.lose_ovsdb("witness")
    world.run(0.1)
    assert world.processes["witness"].machine.member.marks() == {}


def test_with_several_gateways_nobody_serves_before_a_majority_holds_the_decision() -> None:
    """The old active consents; both gateways follow, but the voters' databases do not take the stamp."""
    voters = ("primary", "secondary", "w1", "w2", "w3")
    group = replace(GROUP, gateways=("gateway", "branch"), voters=voters)
    world = begun(Setup(group=group, witnesses=("w1", "w2", "w3")))
    for witness in group.voters[2:]:
        world.lose_ovsdb(witness)
    world.hypervisors["pbx"].crash("primary")
    world.run(1.5)
    assert world.record.active == "secondary"
    assert world.switches["secondary"].present == frozenset()
    world.regain_ovsdb("w1")
    world.run(1.0)
    assert world.answering_copies() == {"secondary"}
