"""What systemd hears: up, alive while fit, nothing while not, and a polite end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunnelswitch.processes.watchdog import Watchdog


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(20.0)
        yield listener


def environment(systemd: socket.socket, period_seconds: float = 0.04) -> dict[str, str]:
    return {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": str(int(period_seconds * 1e6))}


async def heard(systemd: socket.socket) -> bytes:
    return await asyncio.to_thread(systemd.recv, 100)


def drain(systemd: socket.socket) -> int:
    """How many words were waiting."""
    words = 0
    with contextlib.suppress(BlockingIOError):
        while systemd.recv(100):
            words += 1
    return words


async def test_it_says_up_alive_and_stopping(systemd: socket.socket) -> None:
    watchdog = Watchdog(lambda now: True, environment(systemd))
    await watchdog.start()
    assert [await heard(systemd) for _ in range(4)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    await watchdog.close()
    while (word := await heard(systemd)) == b"WATCHDOG=1":
        pass
    assert word == b"STOPPING=1"


async def test_a_site_that_is_not_fit_is_not_kicked(systemd: socket.socket) -> None:
    fit = True
    watchdog = Watchdog(lambda now: fit, environment(systemd))
    await watchdog.start()
    assert await heard(systemd) == b"READY=1"
    fit = False
    await asyncio.sleep(0.1)
    systemd.setblocking(False)
    drain(systemd)
    await asyncio.sleep(0.1)
    assert drain(systemd) == 0
    await watchdog.close()


async def test_without_systemd_it_does_nothing() -> None:
    watchdog = Watchdog(lambda now: True, {})
    await watchdog.start()
    await watchdog.close()


async def test_a_systemd_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    watchdog = Watchdog(lambda now: True, {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "20000"})
    await watchdog.start()
    await asyncio.sleep(0.05)
    await watchdog.close()
