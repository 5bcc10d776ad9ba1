"""Plays one schedule: the faults at their times, then everything healed, then the service must be back."""

from __future__ import annotations

from dataclasses import dataclass

from tunnelswitch_lab.simulator.faults import FAULTS
from tunnelswitch_lab.simulator.invariants import FINAL_RULE, SPIN_RULE, BrokenRuleError
from tunnelswitch_lab.simulator.process import SpinsError
from tunnelswitch_lab.simulator.rules_of_records import all_served, could_serve, service_returns
from tunnelswitch_lab.simulator.schedule import Fault, Schedule
from tunnelswitch_lab.simulator.world import Told, World

SETTLE_SECONDS = 0.15
LOOK_SECONDS = 0.1
RETURN_SECONDS = 12.0
# Whoever cannot serve after so long, when all is healed, waits for a person.
HOPELESS_SECONDS = 3.5


@dataclass(frozen=True, slots=True)
class Violation:
    """What a schedule came to, if it came to harm."""

    rule: str
    what: str
    at: float


def play(schedule: Schedule, told: Told | None = None) -> Violation | None:
    """Play it to its end or to the first rule that does not hold."""
    world = World(schedule.setup, schedule.seed, told=told)
    try:
        _play(world, schedule)
    except BrokenRuleError as error:
        return Violation(error.rule, str(error).partition(": ")[2], world.now)
    except SpinsError as error:
        return Violation(SPIN_RULE, str(error), world.now)
    return None


def _play(world: World, schedule: Schedule) -> None:
    world.start()
    world.run(SETTLE_SECONDS)
    began_at = world.now
    later = [fault for fault in schedule.faults if fault.after_move]
    for fault in schedule.faults:
        if not fault.after_move:
            _plan(world, fault, began_at)

    def moved() -> None:
        while later:
            _plan(world, later.pop(), world.now)

    world.on_move = moved
    world.run(schedule.healed_at)
    world.heal()
    healed_at, until = world.now, world.now + RETURN_SECONDS
    while world.now < until:
        world.run(LOOK_SECONDS)
        if all_served(world) and world.settled():
            return
        if world.now - healed_at > HOPELESS_SECONDS and not could_serve(world):
            break
    wrong = service_returns(world.judge)
    if wrong is not None:
        raise BrokenRuleError(FINAL_RULE, wrong)


def _plan(world: World, fault: Fault, since: float) -> None:
    world.timeline.at(since + fault.at, _begin, world, fault)
    world.timeline.at(since + fault.at + fault.lasts, _end, world, fault)


def _begin(world: World, fault: Fault) -> None:
    if world.healed:
        return
    world.note("FAULT", f"{fault.name}{fault.args} begins")
    FAULTS[fault.name].begin(world, *fault.args)


def _end(world: World, fault: Fault) -> None:
    if world.healed:
        return
    world.note("FAULT", f"{fault.name}{fault.args} ends")
    FAULTS[fault.name].end(world, *fault.args)
