"""Switches that are asked for together go together, and each gets its own answer."""

from __future__ import annotations

import asyncio

from tunnelswitch.batching import BATCH_MAX, Asked, Batches
from tunnelswitch.core.actions import ApplyTunnels
from tunnelswitch.core.events import SwitchApplied, SwitchFailed
from tunnelswitch.core.stamp import Stamp

FAR = 1e9


async def turns() -> None:
    """So many turns of the loop that whatever can begin has begun."""
    for _ in range(10):
        await asyncio.sleep(0)


def switch(group: str, epoch: int = 1) -> ApplyTunnels:
    return ApplyTunnels(group, Stamp(epoch, "a"), None, (), (), 1.0)


class Plane:
    """Applies everything, and remembers what went together. While `held`, nothing ends."""

    def __init__(self) -> None:
        self.together: list[list[str]] = []
        self.free = asyncio.Event()
        self.free.set()

    async def __call__(self, batch: list[Asked]) -> None:
        self.together.append([str(one.action.stamp.epoch) + one.action.group for one in batch])
        await self.free.wait()
        for one in batch:
            one.tell(SwitchApplied(one.action.group, one.action.stamp, frozenset(), 0.0, 0.0, 0.0))


async def test_what_is_asked_for_in_one_step_goes_together() -> None:
    plane = Plane()
    batches = Batches(plane)
    answers = await asyncio.gather(*(batches.ask(switch(f"g{number}"), FAR) for number in range(50)))
    assert [answer.group for answer in answers] == [f"g{number}" for number in range(50)]
    assert len(plane.together) == 1


async def test_what_comes_while_one_is_under_way_goes_in_the_next() -> None:
    plane = Plane()
    plane.free.clear()
    batches = Batches(plane)
    asking = [asyncio.create_task(batches.ask(switch("first"), FAR))]
    await turns()
    asking += [asyncio.create_task(batches.ask(switch(group), FAR)) for group in ("second", "third")]
    await turns()
    assert plane.together == [["1first"]]
    plane.free.set()
    await asyncio.gather(*asking)
    assert plane.together == [["1first"], ["1second", "1third"]]


async def test_two_of_one_group_never_share_a_transaction() -> None:
    """Each carries the guard that it was decided on: in one transaction, one of them would go unguarded."""
    plane = Plane()
    batches = Batches(plane)
    await asyncio.gather(*(batches.ask(switch("g", epoch), FAR) for epoch in (1, 2)), batches.ask(switch("h"), FAR))
    assert plane.together == [["1g", "1h"], ["2g"]]


async def test_a_batch_has_a_limit_and_nobody_is_forgotten() -> None:
    plane = Plane()
    batches = Batches(plane)
    await asyncio.gather(*(batches.ask(switch(f"g{number}"), FAR) for number in range(BATCH_MAX + 1)))
    assert [len(batch) for batch in plane.together] == [BATCH_MAX, 1]


async def test_an_unforeseen_error_is_an_answer_and_the_next_are_served() -> None:
    tried = 0

    async def broken(batch: list[Asked]) -> None:
        nonlocal tried
        tried += 1
        raise KeyError("rows")

    batches = Batches(broken)
    for _ in range(2):
        answer = await batches.ask(switch("g"), FAR)
        assert isinstance(answer, SwitchFailed)
        assert "KeyError" in answer.error
    assert tried == 2


async def test_closing_leaves_nobody_waiting() -> None:
    plane = Plane()
    plane.free.clear()
    batches = Batches(plane)
    asking = [asyncio.create_task(batches.ask(switch("g", epoch), FAR)) for epoch in (1, 2)]
    await turns()
    await batches.close()
    assert all(isinstance(answer, SwitchFailed) for answer in await asyncio.gather(*asking))
