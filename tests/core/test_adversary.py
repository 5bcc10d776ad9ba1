"""What an adversary tries: every situation that once broke a rule, and seeded random faults.

After every step at most one copy answers the clients of all gateways, a gateway has at most one client tunnel, and no
stored stamp goes down. When all is healed, the service is back soon.
"""

from __future__ import annotations

import pytest
from schedule import Schedule, told
from world import GROUP, protect, with_policy
from world_faults import BrokenRuleError, FaultyWorld

TWO_GATEWAYS = with_policy(gateways=("gateway", "branch"), voters=("primary", "secondary", "gateway"))
SCHEDULES = 40
SCHEDULES_TWO_GATEWAYS = 30


def test_a_promotion_that_failed_for_a_while_is_tried_again() -> None:
    world = protect(FaultyWorld())
    world.promote_fails = True
    world.lose_host("primary")
    world.run(3.0)
    world.promote_fails = False
    world.run(3.0)
    assert world.answering_copies() == {"secondary"}


def check_schedule(world: FaultyWorld) -> None:
    protect(world, 0.5)
    try:
        Schedule(world).play()
    except (BrokenRuleError, AssertionError) as error:
        pytest.fail(told(world, str(error)), pytrace=False)
    record = world.record
    active = world.copies[record.active]
    could = active.role == "active" or (active.role == "standby")
    if could and not world.answering_copies():
        pytest.fail(told(world, "all is healed, but nobody answers"), pytrace=False)


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_any_schedule_with_one_gateway(seed: int) -> None:
    check_schedule(FaultyWorld(GROUP, seed))


@pytest.mark.parametrize("seed", range(1000, 1000 + SCHEDULES_TWO_GATEWAYS))
def test_any_schedule_with_two_gateways(seed: int) -> None:
    check_schedule(FaultyWorld(TWO_GATEWAYS, seed))
