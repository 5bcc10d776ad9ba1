"""The simulator itself: it repeats, it sees, it cuts down, it tells; and the real decisions hold in its short form."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from found import FOUND, PAGE, SEEDS_MAX, read, search, table
from planted import PLANTED

from tunnelswitch_lab.simulator.faults import FAULTS, FORGETTING
from tunnelswitch_lab.simulator.playing import play
from tunnelswitch_lab.simulator.running import Outcome, retell, simulate, unlogged
from tunnelswitch_lab.simulator.schedule import Fault, draw
from tunnelswitch_lab.simulator.setup import Setup
from tunnelswitch_lab.simulator.shrinking import shrink
from tunnelswitch_lab.simulator.trace import line
from tunnelswitch_lab.simulator.world import World

SHORT_FORM = 2000


@pytest.mark.timeout(300)
def test_no_invariant_is_broken_by_random_faults() -> None:
    outcome = simulate(1_000_000, SHORT_FORM)
    assert (outcome.schedules, outcome.violations) == (SHORT_FORM, ())


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found_by_its_stored_seed(name: str) -> None:
    found = read()[name]
    seed = found["seed"]
    assert isinstance(seed, int)
    assert seed < SEEDS_MAX
    assert search(name, range(seed, seed + 1)) == found


def test_every_bug_that_was_found_is_still_planted() -> None:
    assert json.loads(FOUND.read_text()).keys() == PLANTED.keys()
    assert len(PLANTED) >= 25
    assert PAGE.read_text(encoding="utf-8") == table(), "python tests/simulator/found.py --table"


def told(seed: int) -> list[str]:
    lines: list[str] = []
    retell(seed, lambda *what: lines.append(line(*what)), whole=True)
    return lines


def test_a_seed_always_tells_the_same_story() -> None:
    assert told(7) == told(7)
    assert told(7) != told(8)


def test_a_failure_is_cut_down_to_the_fault_that_it_takes() -> None:
    with unlogged(), PLANTED["the guard is missing"]():
        schedule = draw(int(str(read()["the guard is missing"]["seed"])))
        violation = play(schedule)
        assert violation is not None
        small = shrink(schedule, violation.rule)
        again = play(small)
    assert again is not None
    assert again.rule == violation.rule
    assert len(small.faults) <= len(schedule.faults)


def test_every_fault_can_begin_and_end_in_every_kind_of_deployment() -> None:
    for seed in range(12):
        schedule = draw(seed)
        for name, kind in FAULTS.items():
            if kind.possible(schedule.setup):
                fault = Fault(0.1, name, kind.draw(random.Random(seed), schedule.setup), 0.3)
                with unlogged():
                    violation = play(replace(schedule, faults=(fault,), healed_at=0.8))
                assert violation is None, (seed, fault, violation)


def test_what_is_drawn_can_happen_in_the_deployment_that_it_is_drawn_for() -> None:
    for seed in range(1000):
        schedule = draw(seed)
        for fault in schedule.faults:
            assert FAULTS[fault.name].possible(schedule.setup), (seed, fault)
        assert sum(fault.name in FORGETTING for fault in schedule.faults) <= 1, "PROTOCOL A1"


def test_a_fault_that_waits_for_a_move_never_comes_without_one() -> None:
    fault = Fault(0.1, "lose_host", ("primary",), 0.2, after_move=True)
    move = Fault(0.2, "operator", ("secondary", False), 0.1)
    for faults, lost in (((fault,), 0), ((fault, move), 1)):
        told: list[object] = []
        with unlogged():
            schedule = replace(draw(0), setup=Setup(), faults=faults, healed_at=1.0)
            assert play(schedule, lambda now, who, what, told=told: told.append(what)) is None  # type: ignore[misc]
        assert sum(str(what).startswith("lose_host") and str(what).endswith("begins") for what in told) == lost


def test_the_fabric_tells_which_copy_clients_reach() -> None:
    with unlogged():
        world = World(Setup())
        world.start()
        world.run(0.5)
        assert world.answering_copies() == {"primary"}
        world.lose_host("primary")
        assert world.answering_copies() == frozenset()
        world.run(2.0)
        assert world.answering_copies() == {"secondary"}


def test_the_last_line_is_for_other_tools() -> None:
    assert str(Outcome(10, (), 1.25)) == "simulate: schedules=10 violations=0 seconds=1.2"


def test_the_command_plays_a_series_and_tells_a_story() -> None:
    command = [str(Path(sys.executable).with_name("tunnelswitch-lab")), "simulate"]
    series = subprocess.run([*command, "--schedules", "20"], capture_output=True, text=True, check=True)
    assert series.stdout.splitlines()[-1].startswith("simulate: schedules=20 violations=0 seconds=")
    story = subprocess.run([*command, "--seed", "7"], capture_output=True, text=True, check=True)
    assert story.stdout.startswith("seed 7: servers primary, secondary")
    assert story.stdout.splitlines()[-1] == "every invariant held"
