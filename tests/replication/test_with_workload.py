"""Two drivers and a real service with a real standby: protected, killed, promoted, fenced."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from driver_bench import eventually, fence_action, is_running, promote_action

from tunnelswitch.config import Exec
from tunnelswitch.core.events import FenceDone, Promoted, RunExited, ServiceSeen
from tunnelswitch.core.facts import CheckpointSeen, Protection
from tunnelswitch.replication.exec import ExecDriver
from tunnelswitch_lab.workload import hooks_directory


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Side:
    """One site: a copy of the service and the driver beside it."""

    def __init__(self, directory: Path, site: str) -> None:
        self.directory = directory / site
        self.directory.mkdir()
        self.site = site
        self.events: list[Any] = []
        hooks = {name: (str(hooks_directory() / name), str(self.directory)) for name in ("promote", "fence", "status")}
        options = Exec(**hooks, notify_socket=str(directory / "{site}.sock"))
        self.driver = ExecDriver("pbx", options, site, self.events.append)
        self.notify = directory / f"{site}.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, role: str, address: str, bind: int, peer: int) -> None:
        self.process = subprocess.Popen(
            f"{sys.executable} -m tunnelswitch_lab.workload.rtp_service --site {self.site} --role {role} "
            f"--listen {address} --rtp-port 5004 --probe-port 5006 --replicate-bind 127.0.0.1:{bind} "
            f"--replicate-peer 127.0.0.1:{peer} --checkpoint-interval-ms 10 --state-dir {self.directory} "
            f"--notify {self.notify}".split()
        )

    @property
    def seen(self) -> ServiceSeen | None:
        return next((event for event in reversed(self.events) if isinstance(event, ServiceSeen)), None)

    def is_protected(self, role: str) -> bool:
        return self.seen is not None and (self.seen.role, self.seen.protection) == (role, Protection.PROTECTED)

    async def close(self) -> None:
        await self.driver.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
async def sides(tmp_path: Path) -> AsyncIterator[tuple[Side, Side]]:
    pair = Side(tmp_path, "primary"), Side(tmp_path, "secondary")
    ports = free_port(), free_port()
    for side, role, address, bind, peer in (
        (pair[1], "standby", "127.53.0.2", ports[1], ports[0]),
        (pair[0], "active", "127.53.0.1", ports[0], ports[1]),
    ):
        await side.driver.start()
        side.start(role, address, bind, peer)
    yield pair
    for side in pair:
        await side.close()


async def test_from_protected_to_promoted_to_fenced(sides: tuple[Side, Side]) -> None:
    primary, secondary = sides
    await eventually(lambda: primary.is_protected("active") and secondary.is_protected("standby"))
    await eventually(lambda: any(isinstance(event, CheckpointSeen) for event in secondary.events))
    run = primary.seen.run if primary.seen else ""
    assert primary.process is not None
    primary.process.kill()
    await eventually(lambda: RunExited("pbx", run) in primary.events)
    answer = await secondary.driver.promote(promote_action())
    assert isinstance(answer, Promoted)
    assert secondary.seen is not None
    assert (secondary.seen.role, secondary.seen.protection) == ("active", Protection.UNPROTECTED)
    await asyncio.sleep(1.5)  # the next look at it must not undo that
    assert secondary.seen.role == "active"
    assert await secondary.driver.fence(fence_action(answer.run)) == FenceDone("pbx", answer.run)
    assert secondary.process is not None
    assert not is_running(secondary.process.pid)
