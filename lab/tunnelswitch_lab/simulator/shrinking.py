"""Cuts a failing schedule down: without the faults it does not need, shorter ones, a plainer deployment.

Greedy, so the result is small rather than smallest; every step is played, so it always still fails, by the same rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tunnelswitch_lab.simulator.playing import play
from tunnelswitch_lab.simulator.schedule import LENGTHS, Schedule
from tunnelswitch_lab.simulator.setup import Delays

TRIES_MAX = 400


def shrink(schedule: Schedule, rule: str) -> Schedule:
    """The smallest schedule found that breaks `rule` as this one does."""
    tries, smaller = 0, True
    while smaller:
        smaller = False
        for candidate in _smaller(schedule):
            tries += 1
            if tries > TRIES_MAX:
                return schedule
            violation = play(candidate)
            if violation is not None and violation.rule == rule:
                schedule, smaller = candidate, True
                break
    return schedule


def _smaller(schedule: Schedule) -> Iterator[Schedule]:
    """One step down each, the biggest first."""
    faults, setup = schedule.faults, schedule.setup
    for index in range(len(faults)):
        yield replace(schedule, faults=faults[:index] + faults[index + 1 :])
    if not setup.protected:
        yield replace(schedule, setup=replace(setup, protected=True))
    if setup.clock_rates:
        yield replace(schedule, setup=replace(setup, clock_rates={}))
    if setup.delays != Delays():
        yield replace(schedule, setup=replace(setup, delays=Delays()))
    services = setup.group.services
    if len(services) > 1 and not any(services[-1].name in fault.args for fault in faults):
        yield replace(schedule, setup=replace(setup, group=replace(setup.group, services=services[:1])))
    for index, fault in enumerate(faults):
        for lasts in LENGTHS:
            if lasts < 0.9 * fault.lasts:
                yield replace(schedule, faults=(*faults[:index], replace(fault, lasts=lasts), *faults[index + 1 :]))
