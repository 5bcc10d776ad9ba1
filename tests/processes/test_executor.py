"""The executor: order of sending, results as events, and adapters that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tunnelswitch.core import actions, events
from tunnelswitch.core.actions import ApplyTunnels, Fence, Message, Promote, Publish
from tunnelswitch.core.facts import Decision, GroupRecord, Reason
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.errors import CommitRefusedError, CommitUnknownError, EpochStoreError
from tunnelswitch.processes.executor import READING_MAX, RUNNING_MAX, Executor

STAMP = Stamp(2, "d")
RECORD = GroupRecord("voip", STAMP, "primary", "secondary", True, Reason.PROOF, ("a", "b", "c"), ("g",))
MESSAGE = Decision("gateway", "voip", STAMP, "commit", "because")
FENCE = Fence("pbx", "run", STAMP, Reason.PROOF, 1.0)
APPLY = ApplyTunnels("voip", STAMP, None, (), (), 1.0)


class FakeBus:
    connected = True

    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def publish(self, message: Message) -> None:
        self.log.append("published")

    async def flush(self, deadline_seconds: float) -> None:
        await asyncio.sleep(0)
        self.log.append("flushed")


class FakeEpochs:
    def __init__(self) -> None:
        self.raises: Exception | None = None
        self.hangs = asyncio.Event()

    async def read(self, group: str, deadline_seconds: float) -> tuple[GroupRecord | None, int]:
        if self.raises:
            raise self.raises
        return RECORD, 7

    async def commit(self, record: GroupRecord, revision: int, deadline_seconds: float) -> int:
        if self.raises:
            raise self.raises
        return revision + 1

    async def pin_leader(self, avoid: tuple[str, ...]) -> str | None:
        await self.hangs.wait()
        return "gateway"


class FakeDataPlane:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def apply(self, action: ApplyTunnels) -> events.SwitchApplied:
        self.log.append("applied")
        return events.SwitchApplied("voip", action.stamp, frozenset(), 0.0, 0.0, 0.0)


class Bench:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.posted: list[object] = []
        self.epochs = FakeEpochs()
        self.executor = Executor(FakeBus(self.log), self.epochs, FakeDataPlane(self.log))
        self.executor.connect(self.posted.append)

    async def perform(self, *batch: actions.Action) -> list[object]:
        self.executor.perform(batch)
        for _ in range(10):
            await asyncio.sleep(0)
        return self.posted


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.executor.close()


async def test_the_standby_is_told_before_the_switch_at_home_begins(bench: Bench) -> None:
    await bench.perform(Publish(MESSAGE, flush=True), APPLY, Publish(MESSAGE))
    assert bench.log == ["published", "flushed", "published", "applied"] or bench.log == [
        "published", "flushed", "applied", "published",
    ]  # fmt: skip
    assert isinstance(bench.posted[0], events.SwitchApplied)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (CommitRefusedError("lost"), events.CommitRefused),
        (CommitUnknownError("no answer"), events.CommitUnknown),
        (EpochStoreError("gone"), events.CommitUnknown),
        (None, events.Committed),
    ],
)
async def test_every_end_of_a_commit_is_an_event(bench: Bench, error: Exception | None, answer: type) -> None:
    bench.epochs.raises = error
    (event,) = await bench.perform(actions.CommitRecord(RECORD, 6, 1.0))
    assert isinstance(event, answer)


async def test_a_read_that_fails_says_so(bench: Bench) -> None:
    bench.epochs.raises = EpochStoreError("gone", "start NATS")
    (event,) = await bench.perform(actions.ReadRecord("voip", 1.0))
    assert event == events.ReadFailed("voip", "gone; start NATS")


async def test_a_service_without_a_driver_is_an_answer_and_no_crash(bench: Bench) -> None:
    posted = await bench.perform(
        Promote("pbx", "run", STAMP, Reason.PROOF, 1.0), Fence("pbx", "run", STAMP, Reason.PROOF, 1.0)
    )
    assert [type(event) for event in posted] == [events.PromotionFailed, events.FenceFailed]


async def test_an_adapter_that_raises_what_it_should_not_ends_nothing(bench: Bench) -> None:
    bench.epochs.raises = ZeroDivisionError()
    await bench.perform(actions.ReadRecord("voip", 1.0))
    bench.epochs.raises = None
    (event,) = await bench.perform(actions.ReadRecord("voip", 1.0))
    assert event == events.RecordRead("voip", RECORD, 7)


async def test_one_pinning_at_a_time_and_a_bound_on_everything(bench: Bench) -> None:
    await bench.perform(*[actions.PinLeader(("primary",))] * 3)
    assert len(bench.executor._running) == 1
    bench.executor.perform((FENCE,) * (2 * RUNNING_MAX))
    assert len(bench.executor._running) <= RUNNING_MAX
    assert bench.executor.refused > 0


async def test_a_poll_of_many_groups_is_in_nobodys_way(bench: Bench) -> None:
    bench.executor.perform(tuple(actions.ReadRecord(f"g{number}", 1.0) for number in range(2 * RUNNING_MAX)))
    bench.executor.perform((FENCE,))
    assert (len(bench.executor._reading), len(bench.executor._running)) == (2 * RUNNING_MAX, 1)
    assert bench.executor.refused == 0
    bench.executor.perform((actions.ReadRecord("voip", 1.0),) * READING_MAX)
    assert len(bench.executor._reading) == READING_MAX
    assert bench.executor.refused > 0


async def test_a_full_executor_refuses_each_action_by_itself_and_still_publishes(bench: Bench) -> None:
    bench.executor.perform((FENCE,) * RUNNING_MAX)
    bench.executor.perform((Publish(MESSAGE, flush=True), FENCE, Publish(MESSAGE)))
    assert bench.log.count("published") == 2
    assert bench.executor.refused == 2, "the wait for the flush, and the fence"
