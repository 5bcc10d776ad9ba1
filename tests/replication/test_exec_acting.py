"""The exec driver acting: promotions and fences, also with hooks that lie, hang or fail."""

from __future__ import annotations

import asyncio
import time

from driver_bench import Bench, fence_action, is_running, promote_action
from structlog.testing import capture_logs

from tunnelswitch.core.events import FenceDone, FenceFailed, Promoted, PromotionFailed, RunExited, ServiceSeen
from tunnelswitch.core.facts import CheckpointSeen, Protection


async def test_promotes_the_run_that_it_watches(bench: Bench) -> None:
    process = bench.service("r1", in_sync=True)
    log = bench.directory / "said"
    script = f'echo "$TUNNELSWITCH_ROLE $TUNNELSWITCH_EPOCH $TUNNELSWITCH_REASON" > "{log}"'
    driver = await bench.start(promote=bench.hook("promote", script))
    await bench.seen(ServiceSeen, run="r1")
    bench.say(process, "r1", "active", in_sync=False)
    answer = await driver.promote(promote_action())
    assert isinstance(answer, Promoted)
    assert (answer.run, log.read_text(encoding="utf-8")) == ("r1", "active 7 proof\n")
    seen = await bench.seen(ServiceSeen, role="active")
    assert (seen.protection, seen.in_sync) == (Protection.UNPROTECTED, False)


async def test_another_run_than_the_one_meant_is_not_promoted(bench: Bench) -> None:
    bench.service("r2", role="standby")
    driver = await bench.start()
    await bench.seen(ServiceSeen, run="r2")
    refused = await driver.promote(promote_action(run="r1"))
    assert isinstance(refused, PromotionFailed)
    assert "run r1 is to take over, and r2 is here" in refused.error


async def test_a_hook_may_start_the_process(bench: Bench) -> None:
    started = bench.hook("promote", 'cp "$1/next.json" "$1/status.json"')
    driver = await bench.start(promote=started)
    await bench.seen(ServiceSeen, run="")
    bench.service("r9", "active")
    bench.status_file.replace(bench.directory / "next.json")
    answer = await driver.promote(promote_action())
    assert isinstance(answer, Promoted)
    assert answer.run == "r9"


async def test_a_promotion_that_lies_fails_or_hangs(bench: Bench) -> None:
    driver = await bench.start()
    answer = await driver.promote(promote_action())
    assert answer == PromotionFailed("pbx", "promote ended with status 0, but no process serves")
    bench.service("r1")
    bench.hook("promote", "echo not today >&2; exit 1")
    answer = await driver.promote(promote_action())
    assert answer == PromotionFailed("pbx", "promote ended with status 1: not today")
    bench.hook("promote", "sleep 600")
    hanging = asyncio.create_task(driver.promote(promote_action(0.5)))
    await asyncio.sleep(0)
    second = await driver.promote(promote_action())
    assert second == PromotionFailed("pbx", "a promotion is already under way")
    assert await hanging == PromotionFailed("pbx", "promote did not end within 0.5 s")


async def test_a_promotion_that_leaves_a_standby_is_a_lie(bench: Bench) -> None:
    bench.service("r1", in_sync=True)
    driver = await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    answer = await driver.promote(promote_action(2.0))
    assert answer == PromotionFailed("pbx", "promote ended with status 0, but run r1 is a standby")
    assert all(event.role != "active" for event in bench.events)


async def test_a_promotion_whose_copy_says_so_a_little_later(bench: Bench) -> None:
    process = bench.service("r1", in_sync=True)
    driver = await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    promotion = asyncio.create_task(driver.promote(promote_action()))
    await asyncio.sleep(0.2)
    bench.say(process, "r1", "active", in_sync=False)
    assert isinstance(await promotion, Promoted)


async def test_a_status_hook_that_hangs_holds_no_promotion(bench: Bench) -> None:
    bench.service("r1", in_sync=True)
    driver = await bench.start(timeout_seconds=1.0)
    await bench.seen(ServiceSeen, run="r1")
    bench.hook("status", "sleep 600")
    assert isinstance(await driver.promote(promote_action()), Promoted)


async def test_a_status_hook_that_hangs_takes_no_time_from_a_fence(bench: Bench) -> None:
    process = bench.service("r1", "active")
    driver = await bench.start(
        status=bench.hook("status", "sleep 600"),
        fence=bench.hook("fence", 'sleep 0.2; kill -KILL "$(cat "$1/pid")"'),
    )
    answer = await driver.fence(fence_action("r1", 4.0))
    assert answer == FenceFailed("pbx", "fence ended with status 0, but status does not say that nobody is here")
    assert not is_running(process.pid), "it was done; only nobody could tell"


async def test_what_an_acting_hook_said_is_logged(bench: Bench) -> None:
    process = bench.service("r1", in_sync=True)
    driver = await bench.start(promote=bench.hook("promote", "echo one; echo two >&2"))
    await bench.seen(ServiceSeen, run="r1")
    bench.say(process, "r1", "active", in_sync=False)
    with capture_logs() as logs:
        await driver.promote(promote_action())
        bench.hook("promote", "printf 'no\\033 disk' >&2; exit 1")
        await driver.promote(promote_action())
    told = [entry for entry in logs if entry.get("hook") == "promote"]
    assert [(entry["event"], entry["log_level"], entry["said"]) for entry in told] == [
        ("hook_ended", "info", "one | two"),
        ("hook_failed", "warning", "no? disk"),
    ]


async def test_a_standby_that_dies_while_it_is_promoted(bench: Bench) -> None:
    bench.service("r1")
    driver = await bench.start(promote=bench.hook("promote", 'kill -KILL "$(cat "$1/pid")"; sleep 0.2'))
    await bench.seen(ServiceSeen, run="r1")
    assert isinstance(await driver.promote(promote_action()), PromotionFailed)
    assert RunExited("pbx", "r1") in bench.events


async def test_what_was_said_before_a_promotion_does_not_undo_it(bench: Bench) -> None:
    process = bench.service("r1", in_sync=True)
    driver = await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    bench.say(process, "r1", "active", in_sync=False)
    await driver.promote(promote_action())
    bench.notice(kind="role", run="r1", role="standby", in_sync=True)
    bench.notice(kind="checkpoint", run="r1", role="standby", sequence=4, pause_seconds=0.0, bytes=1)
    await bench.seen(CheckpointSeen, sequence=4)
    assert bench.events[-2].role == "active"


async def test_fences_and_checks_that_the_process_is_gone(bench: Bench) -> None:
    process = bench.service("r1", "active")
    driver = await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    assert await driver.fence(fence_action("r1")) == FenceDone("pbx", "r1")
    assert not is_running(process.pid)
    assert RunExited("pbx", "r1") in bench.events
    bench.hook("fence", "exit 1")
    assert await driver.fence(fence_action("r1")) == FenceDone("pbx", "r1"), "gone already: no hook is needed"


async def test_a_fence_that_lies_is_a_failure(bench: Bench) -> None:
    process = bench.service("r1", "active")
    driver = await bench.start(fence=bench.hook("fence", "exit 0"))
    await bench.seen(ServiceSeen, run="r1")
    answer = await driver.fence(fence_action("r1", 2.0))
    assert answer == FenceFailed("pbx", f"fence ended with status 0; process {process.pid} of run r1 still runs")


async def test_a_fence_that_fails_after_its_work_has_done_its_work(bench: Bench) -> None:
    bench.service("r1", "active")
    driver = await bench.start(fence=bench.hook("fence", 'kill -KILL "$(cat "$1/pid")"; sleep 0.2; exit 1'))
    await bench.seen(ServiceSeen, run="r1")
    assert await driver.fence(fence_action("r1")) == FenceDone("pbx", "r1")


async def test_a_fence_of_another_run_touches_nobody(bench: Bench) -> None:
    process = bench.service("r2", "active")
    driver = await bench.start()
    await bench.seen(ServiceSeen, run="r2")
    assert await driver.fence(fence_action("r1")) == FenceFailed("pbx", "run r1 is not here: run r2 is")
    assert is_running(process.pid)


async def test_a_fence_where_nobody_is_known(bench: Bench) -> None:
    driver = await bench.start(fence=bench.hook("fence", "exit 1"))
    await bench.seen(ServiceSeen, run="")
    assert await driver.fence(fence_action("r1")) == FenceFailed("pbx", "fence ended with status 1")
    bench.hook("fence", "exit 0")
    assert await driver.fence(fence_action("r1")) == FenceDone("pbx", "r1")


async def test_a_fence_overtakes_a_promotion(bench: Bench) -> None:
    bench.service("r1")
    driver = await bench.start(promote=bench.hook("promote", "sleep 600"), timeout_seconds=30.0)
    await bench.seen(ServiceSeen, run="r1")
    promotion = asyncio.create_task(driver.promote(promote_action(30)))
    await asyncio.sleep(0.1)
    assert await driver.fence(fence_action("r1")) == FenceDone("pbx", "r1")
    assert await promotion == PromotionFailed("pbx", "promote was overtaken by a fence")


async def test_promotion_is_quick(bench: Bench) -> None:
    process = bench.service("r1", in_sync=True)
    driver = await bench.start(promote=("/bin/true",))
    await bench.seen(ServiceSeen, run="r1")
    bench.say(process, "r1", "active", in_sync=False)
    times = []
    for _ in range(20):
        started_at = time.perf_counter()
        assert isinstance(await driver.promote(promote_action()), Promoted)
        times.append(time.perf_counter() - started_at)
    assert min(times) < 0.05, "nothing in it waits"
