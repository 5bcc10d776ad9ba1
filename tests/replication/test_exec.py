"""The exec driver against real processes: what it sees, what it does, and what it refuses to believe."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

import pytest
from driver_bench import Bench, eventually, is_running

from tunnelswitch.config import load
from tunnelswitch.core.events import RunExited, ServiceSeen
from tunnelswitch.core.facts import CheckpointSeen, Protection
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


async def test_the_service_outlives_the_driver(bench: Bench, tmp_path: Path) -> None:
    process = bench.service("r1", "active")
    driver = await bench.start()
    await bench.seen(ServiceSeen, run="r1")
    await driver.close()
    assert is_running(process.pid)
