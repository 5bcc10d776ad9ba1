"""The exec driver's part in a planned move: one checkpoint more, that surely began after it was asked for."""

from __future__ import annotations

import asyncio

import pytest
from driver_bench import Bench

from tunnelswitch.core.actions import TakeCheckpoint
from tunnelswitch.core.events import CheckpointFailed, CheckpointTaken, ServiceSeen
from tunnelswitch.core.facts import CheckpointSeen
from tunnelswitch.replication.exec import ExecDriver


def take(run: str = "r1", deadline_seconds: float = 20.0) -> TakeCheckpoint:
    return TakeCheckpoint("pbx", run, 7, urgent=True, deadline_seconds=deadline_seconds)


async def serving(bench: Bench, **options: object) -> ExecDriver:
    bench.service("r1", "active", in_sync=True)
    driver = await bench.start(**options)
    await bench.seen(ServiceSeen, run="r1")
    return driver


def committed(bench: Bench, sequence: int) -> None:
    bench.notice(kind="checkpoint", run="r1", role="active", sequence=sequence, pause_seconds=0.0, bytes=1)


async def test_the_first_to_end_may_have_begun_before_and_the_second_counts(bench: Bench) -> None:
    driver = await serving(bench)
    asked_at = asyncio.get_running_loop().time()
    asking = asyncio.create_task(driver.checkpoint(take()))
    await asyncio.sleep(0.05)
    before_both = asyncio.get_running_loop().time()
    committed(bench, 4)
    await bench.seen(CheckpointSeen, sequence=4)
    assert not asking.done()
    committed(bench, 5)
    taken = await asking
    assert isinstance(taken, CheckpointTaken)
    assert (taken.request, taken.sequence) == (7, 5)
    assert asked_at <= taken.holds_until <= before_both


async def test_the_hook_makes_them_come_sooner_and_proves_nothing(bench: Bench) -> None:
    hook = bench.hook("checkpoint", 'echo asked >> "$1/asked"')
    driver = await serving(bench, checkpoint=hook)
    assert isinstance(await driver.checkpoint(take(deadline_seconds=2.0)), CheckpointFailed)
    assert (bench.directory / "asked").read_text() == "asked\n"


async def test_without_notices_the_hooks_word_has_to_do(bench: Bench) -> None:
    driver = await serving(bench, notify_socket="", checkpoint=bench.hook("checkpoint", "exit 0"))
    taken = await driver.checkpoint(take())
    assert isinstance(taken, CheckpointTaken)
    assert taken.sequence >= 1, "0 would mean that there was none"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"notify_socket": ""}, "it tells of none; give exec.checkpoint or exec.notify_socket"),
        ({"checkpoint": "exit 3"}, "checkpoint ended with status 3"),
    ],
    ids=["nothing to go by", "the hook fails"],
)
async def test_what_cannot_be_known_is_refused(bench: Bench, options: dict[str, str], why: str) -> None:
    if "checkpoint" in options:
        driver = await serving(bench, checkpoint=bench.hook("checkpoint", options["checkpoint"]))
    else:
        driver = await serving(bench, **options)
    failed = await driver.checkpoint(take())
    assert isinstance(failed, CheckpointFailed)
    assert why in failed.error.replace("\n", "; ")


async def test_the_end_of_the_process_ends_the_waiting(bench: Bench) -> None:
    process = bench.service("r1", "active", in_sync=True)
    driver = await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    asking = asyncio.create_task(driver.checkpoint(take()))
    await asyncio.sleep(0.05)
    process.kill()
    failed = await asking
    assert isinstance(failed, CheckpointFailed)
    assert "the process has ended" in failed.error
    other = await driver.checkpoint(take("r0"))
    assert isinstance(other, CheckpointFailed)
    assert "run r0 is not here" in other.error
