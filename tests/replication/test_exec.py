"""The exec driver against real processes: what it sees, what it does, and what it refuses to believe."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from pathlib import Path

import pytest
from driver_bench import Bench, eventually, fence_action, is_running, leave_stale_socket, promote_action
from structlog.testing import capture_logs

from tunnelswitch.config import load
from tunnelswitch.core.events import FenceDone, FenceFailed, Promoted, PromotionFailed, RunExited, ServiceSeen
from tunnelswitch.core.facts import CheckpointSeen, Protection
from tunnelswitch.errors import DriverError
from tunnelswitch.telemetry.metrics import Metrics

EXAMPLE = Path(__file__).parents[2] / "deploy/example.toml"


async def test_nothing_there(bench: Bench) -> None:
    await bench.start()
    seen = await bench.seen(ServiceSeen)
    assert seen == ServiceSeen("pbx", "", "stopped", Protection.STOPPED, in_sync=False, why="no process")


async def test_attaches_and_tells_the_exit_at_once(bench: Bench) -> None:
    process = bench.service("r1", in_sync=True)
    await bench.start()
    seen = await bench.seen(ServiceSeen, run="r1")
    assert (seen.role, seen.protection, seen.in_sync) == ("standby", Protection.PROTECTED, True)
    process.kill()
    await bench.seen(RunExited, run="r1")
    assert bench.events[-2:] == [
        RunExited("pbx", "r1"),
        ServiceSeen("pbx", "", "stopped", Protection.STOPPED, in_sync=False, why="no process"),
    ]


async def test_a_new_run_is_found_and_the_old_one_is_not_believed_again(bench: Bench) -> None:
    first = bench.service("r1")
    await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    first.kill()
    await bench.seen(RunExited, run="r1")
    bench.service("r1")  # another process that claims to be the run that has ended
    await bench.until(lambda: bench.counts["status_failed"] >= 2)
    assert [event.run for event in bench.events if isinstance(event, ServiceSeen) and event.run] == ["r1"]
    bench.service("r2")
    bench.notice(kind="role", run="r2", role="standby", in_sync=False)
    await bench.seen(ServiceSeen, run="r2")


async def test_a_process_that_is_not_the_services_own_is_refused(bench: Bench) -> None:
    process = bench.service("r1")
    for pid in (1, os.getpid()):
        bench.status_file.write_text(json.dumps({"pid": pid, "run": "r0", "role": "active"}), encoding="utf-8")
        await bench.start(notify_socket="")
        bad = bench.counts["status_failed"]
        await bench.until(lambda bad=bad: bench.counts["status_failed"] > bad)
    bench.say(process, "r1", "standby", in_sync=False, start_ticks=12345)
    await bench.start()
    await bench.until(lambda: bench.counts["status_failed"] >= 3)
    assert not any(isinstance(event, ServiceSeen) and event.run for event in bench.events)


async def test_another_process_under_the_same_run_does_not_replace_the_one_we_watch(bench: Bench) -> None:
    process = bench.service("r1")
    await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    impostor = bench.service("r1")
    await bench.until(lambda: bench.counts["status_failed"])
    impostor.kill()
    impostor.wait()
    await asyncio.sleep(0.2)
    assert not any(isinstance(event, RunExited) for event in bench.events)
    process.kill()
    await bench.seen(RunExited, run="r1")


async def test_a_former_run_that_lives_on_is_watched_to_its_end(bench: Bench) -> None:
    first = bench.service("r1")
    await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    bench.service("r2")
    await bench.seen(ServiceSeen, run="r2")
    first.kill()
    await bench.seen(RunExited, run="r1")
    assert bench.events[-1] == RunExited("pbx", "r1")


@pytest.mark.parametrize(
    "output",
    [
        "",
        "not json",
        "[]",
        '{"pid": -1, "run": "r", "role": "active"}',
        '{"pid": "1", "run": "r", "role": "active"}',
        '{"pid": 99, "run": "a=b,c", "role": "active"}',
        '{"pid": 99, "run": "r", "role": "boss"}',
        "[" * 3000,
        '{"pid": 4194304, "run": "r", "role": "active"}',
    ],
)
async def test_nonsense_from_the_status_hook_is_counted_and_changes_nothing(bench: Bench, output: str) -> None:
    bench.status_file.write_text(output, encoding="utf-8")
    await bench.start()
    await bench.until(lambda: bench.counts["status_failed"])
    assert all(event.run == "" for event in bench.events)


async def test_a_status_hook_that_fails_does_not_mean_that_the_run_has_ended(bench: Bench) -> None:
    bench.service("r1", "active", in_sync=True)
    await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    bench.status_file.unlink()
    await bench.until(lambda: bench.counts["status_failed"] >= 2)
    assert bench.events[-1].run == "r1"


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
    await asyncio.sleep(0.1)
    second = await driver.promote(promote_action())
    assert second == PromotionFailed("pbx", "a promotion is already under way")
    assert await hanging == PromotionFailed("pbx", "promote did not end within 0.5 s")


async def test_a_promotion_that_leaves_a_standby_is_a_lie(bench: Bench) -> None:
    bench.service("r1", in_sync=True)
    driver = await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    answer = await driver.promote(promote_action(0.5))
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
    driver = await bench.start(timeout_seconds=0.3)
    await bench.seen(ServiceSeen, run="r1")
    bench.hook("status", "sleep 600")
    assert isinstance(await driver.promote(promote_action()), Promoted)


async def test_a_status_hook_that_hangs_takes_no_time_from_a_fence(bench: Bench) -> None:
    process = bench.service("r1", "active")
    driver = await bench.start(
        status=bench.hook("status", "sleep 600"),
        fence=bench.hook("fence", 'sleep 0.2; kill -KILL "$(cat "$1/pid")"'),
    )
    answer = await driver.fence(fence_action("r1", 2.0))
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
    answer = await driver.fence(fence_action("r1", 0.5))
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


async def test_health_is_counted_and_decides_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelswitch.replication.watching.POLL_SECONDS", 0.1)
    bench.service("r1", "active", in_sync=True)
    driver = await bench.start(health=bench.hook("health", "exit 1"))
    await bench.until(lambda: driver.health_failures >= 4)
    assert bench.counts["health_failed"] >= 4
    shown = Metrics(load(EXAMPLE), "primary", "agent")
    shown.watch_health("pbx", driver)
    failures = re.findall(r'tunnelswitch_health_failures\{service="pbx"\} (\d+)', shown.render().decode())
    assert [int(number) >= 4 for number in failures] == [True]
    assert [type(event) for event in bench.events if getattr(event, "run", "")] == [ServiceSeen]
    bench.hook("health", "exit 0")
    await eventually(lambda: driver.health_failures == 0)


async def test_checkpoints_peers_and_roles(bench: Bench) -> None:
    bench.service("r1", "active")
    await bench.start()
    seen = await bench.seen(ServiceSeen, run="r1")
    assert seen.protection is Protection.UNPROTECTED
    bench.notice(kind="peer", run="r1", connected=True, reason="more words are allowed")
    await bench.seen(ServiceSeen, protection=Protection.SYNCING)
    bench.notice(kind="checkpoint", run="r1", role="active", sequence=5, pause_seconds=0.001, bytes=900)
    assert (await bench.seen(CheckpointSeen)) == CheckpointSeen("here", "pbx", "r1", "active", 5, 0.001, 900)
    await bench.seen(ServiceSeen, protection=Protection.PROTECTED, in_sync=True)
    bench.notice(kind="peer", run="r1", connected=False)
    await bench.until(lambda: bench.events[-1].protection is Protection.UNPROTECTED)
    assert not bench.events[-1].in_sync


async def test_a_standby_stays_in_sync_without_its_stream(bench: Bench) -> None:
    bench.service("r1", "standby", in_sync=True)
    await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    bench.notice(kind="peer", run="r1", connected=False)
    bench.notice(kind="checkpoint", run="r1", role="standby", sequence=9, pause_seconds=0.0, bytes=1)
    await bench.seen(CheckpointSeen)
    assert [event.in_sync for event in bench.events if isinstance(event, ServiceSeen) and event.run] == [True]


async def test_bad_notices_are_counted(bench: Bench) -> None:
    bench.service("r1", "active")
    await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    for data in (b"", b"\xff\xfe", b"{}", b'{"kind":"nuke","run":"r1"}', b"[" * 4000):
        bench.datagram(data)
    bench.notice(kind="checkpoint", run="r1", role="active", sequence=-1, pause_seconds=0.0, bytes=1)
    bench.notice(kind="peer", run="r 1\n", connected=True)
    await bench.until(lambda: bench.counts["notice_invalid"] == 7)
    bench.datagram(b"x" * 5000)
    await bench.until(lambda: bench.counts["notice_too_large"] == 1)
    bench.notice(kind="checkpoint", run="r0", role="active", sequence=1, pause_seconds=0.0, bytes=1)
    bench.notice(kind="peer", run="r1", connected=True)
    await bench.seen(ServiceSeen, protection=Protection.SYNCING)
    assert not any(isinstance(event, CheckpointSeen) for event in bench.events), "r0 is not the run we watch"


async def test_a_flood_of_notices_is_cut_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelswitch.replication.notices.PER_SECOND_MAX", 10)
    bench.service("r1", "active")
    await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    for _ in range(10):
        for number in range(8):
            bench.notice(kind="checkpoint", run="r1", role="active", sequence=number, pause_seconds=0.0, bytes=1)
        await asyncio.sleep(0.01)
    await bench.until(lambda: bench.counts["notice_flood"] >= 40)


async def test_the_socket_is_private_and_goes_away(bench: Bench) -> None:
    driver = await bench.start()
    assert bench.notify.stat().st_mode & 0o777 == 0o660
    await driver.close()
    assert not bench.notify.exists()


async def test_a_stale_socket_is_taken_over_but_nothing_else_is(bench: Bench) -> None:
    leave_stale_socket(bench.notify)
    await bench.start()
    with pytest.raises(DriverError, match="is in use"):
        await bench.start()
    other = bench.directory / "file"
    other.write_text("precious", encoding="utf-8")
    with pytest.raises(DriverError, match="is taken by another file"):
        await bench.start(notify_socket=str(other))
    assert other.read_text(encoding="utf-8") == "precious"
    with pytest.raises(DriverError, match="too long"):
        await bench.start(notify_socket="/tmp/" + "x" * 200)
    with pytest.raises(DriverError, match="cannot be made"):
        await bench.start(notify_socket="/proc/nowhere/notify.sock")


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
    assert sorted(times)[10] < 0.05


async def test_the_service_outlives_the_driver(bench: Bench, tmp_path: Path) -> None:
    process = bench.service("r1", "active")
    driver = await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    await driver.close()
    assert is_running(process.pid)
