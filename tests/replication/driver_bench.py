"""A service that is nobody's child, hooks written in sh, and a driver between them: all real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunnelswitch.config import Exec
from tunnelswitch.core.actions import Fence, Promote
from tunnelswitch.core.facts import Reason
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.replication.exec import ExecDriver

WAIT_SECONDS = 20.0
POLL_SECONDS = 0.01
STAMP = Stamp(7, "gw.a1.3")


def promote_action(deadline_seconds: float = 15.0, run: str = "") -> Promote:
    return Promote("pbx", run, STAMP, Reason.PROOF, deadline_seconds)


def fence_action(run: str, deadline_seconds: float = 20.0) -> Fence:
    return Fence("pbx", run, STAMP, Reason.OPERATOR, deadline_seconds)


class Bench:
    """A driver in a directory of its own, with everything that it emitted and counted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events: list[Any] = []
        self.counts: Counter[str] = Counter()
        self.notify = directory / "notify-here.sock"
        self.status_file = directory / "status.json"
        self._drivers: list[ExecDriver] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._more = asyncio.Event()

    def hook(self, name: str, body: str) -> tuple[str, ...]:
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return (str(path), str(self.directory))

    def options(self, **overrides: Any) -> Exec:
        options: dict[str, Any] = {"notify_socket": str(self.directory / "notify-{site}.sock"), **overrides}
        usual = {
            "promote": "exit 0",
            "fence": 'kill -KILL "$(cat "$1/pid")"',
            "status": 'cat "$1/status.json"',
        }
        for name, body in usual.items():
            if name not in options:
                options[name] = self.hook(name, body)
        return Exec(**options)

    async def start(self, **overrides: Any) -> ExecDriver:
        driver = ExecDriver("pbx", self.options(**overrides), "here", self._emit, self._count)
        self._drivers.append(driver)
        await driver.start()
        return driver

    def _emit(self, event: object) -> None:
        self.events.append(event)
        self._more.set()

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1
        self._more.set()

    def service(self, run: str, role: str = "standby", *, in_sync: bool = False) -> subprocess.Popen[bytes]:
        """Start the process of a service; the driver only ever learns its number."""
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self._processes.append(process)
        (self.directory / "pid").write_text(str(process.pid), encoding="utf-8")
        self.say(process, run, role, in_sync=in_sync)
        return process

    def say(self, process: subprocess.Popen[bytes], run: str, role: str, *, in_sync: bool, **more: Any) -> None:
        status = {"pid": process.pid, "run": run, "role": role, "in_sync": in_sync, "sequence": 1, **more}
        temporary = self.directory / "status.new"
        temporary.write_text(json.dumps(status), encoding="utf-8")
        temporary.replace(self.status_file)

    def notice(self, **fields: Any) -> None:
        self.datagram(json.dumps(fields).encode())

    def datagram(self, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(data, str(self.notify))

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait for what the driver emits or counts."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not (found := condition()):
                self._more.clear()
                await self._more.wait()
        return found

    async def seen(self, kind: type, **fields: Any) -> Any:
        def matching() -> Any:
            for event in self.events:
                if isinstance(event, kind) and all(getattr(event, key) == value for key, value in fields.items()):
                    return event
            return None

        return await self.until(matching)

    async def close(self) -> None:
        for driver in self._drivers:
            await driver.close()
        for process in self._processes:
            process.kill()
            process.wait()


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait for what nobody tells us of."""
    for _ in range(int(WAIT_SECONDS / POLL_SECONDS)):
        if condition():
            return
        await asyncio.sleep(POLL_SECONDS)
    raise AssertionError("did not happen in time")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def leave_stale_socket(path: Path) -> None:
    """What an agent that was killed leaves behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(path))


def is_running(pid: int) -> bool:
    """Alive, and not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def kill_if_running(pid: int) -> None:
    if is_running(pid):
        os.kill(pid, signal.SIGKILL)
