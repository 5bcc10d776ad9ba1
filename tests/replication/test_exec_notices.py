"""The exec driver listening: what a service tells by its socket."""

from __future__ import annotations

import asyncio

import pytest
from driver_bench import Bench, leave_stale_socket

from tunnelswitch.core.events import ServiceSeen
from tunnelswitch.core.facts import CheckpointSeen, Protection
from tunnelswitch.errors import DriverError


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
    async with asyncio.timeout(20):
        while bench.counts["notice_flood"] < 40:
            for number in range(8):
                bench.notice(kind="checkpoint", run="r1", role="active", sequence=number, pause_seconds=0.0, bytes=1)
            await asyncio.sleep(0.01)


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
