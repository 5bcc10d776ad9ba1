"""Pairs of real QEMUs whose machines idle in their firmware, and a driver on each, as the agents of two sites have."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient

from tunnelswitch.config import Colo, ColoSite
from tunnelswitch.core.actions import Fence, Promote
from tunnelswitch.core.events import ServiceSeen
from tunnelswitch.core.facts import Protection, Reason
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.replication.colo import ColoDriver

WAIT_SECONDS = 20.0
STAMP = Stamp(7, "gw.a1.3")
SITES = ("one", "two")
MUTE = ("-object", "filter-redirector,id=mute0,netdev=net0,queue=rx,outdev=null0", "-chardev", "null,id=null0")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def promote(deadline_seconds: float = 20.0) -> Promote:
    return Promote("vm", "", STAMP, Reason.PROOF, deadline_seconds)


def fence(run: str, deadline_seconds: float = 20.0) -> Fence:
    return Fence("vm", run, STAMP, Reason.OPERATOR, deadline_seconds)


class Agent:
    """One driver, with everything that it emitted and counted."""

    def __init__(self, options: Colo, site: str) -> None:
        self.events: list[Any] = []
        self.counts: Counter[str] = Counter()
        self.driver = ColoDriver("vm", options, site, self.events.append, self._count)

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1

    @property
    def seen(self) -> ServiceSeen:
        return next(
            (event for event in reversed(self.events) if isinstance(event, ServiceSeen)),
            ServiceSeen("vm", "", "unseen", Protection.STOPPED, in_sync=False),
        )

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Machines:
    """Up to two QEMUs and their agents in one directory."""

    def __init__(self, directory: Path, qemu: Sequence[str]) -> None:
        self.directory = directory
        self.qemu = list(qemu)
        self.agents: dict[str, Agent] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._everything: list[subprocess.Popen[bytes]] = []
        self._ports = {site: free_port() for site in SITES}

    def options(self, **overrides: Any) -> Colo:
        sites = {site: ColoSite(migration_address=f"127.0.0.1:{port}") for site, port in self._ports.items()}
        usual = {"qmp_socket": str(self.directory / "{site}.sock"), "sites": sites, "checkpoint_interval_ms": 50}
        return Colo(**{**usual, "stall_seconds": 5.0, **overrides})

    def boot(
        self, site: str, *more: str, standby: bool = False, muted: bool = True, namespace: str = ""
    ) -> subprocess.Popen[bytes]:
        """Start a QEMU, in a network namespace if one is named; its monitor comes in its own time."""
        (self.directory / f"{site}.sock").unlink(missing_ok=True)
        command = [
            *(("ip", "netns", "exec", namespace) if namespace else ()),
            *self.qemu,
            *("-accel", "tcg,tb-size=8", "-machine", "pc", "-cpu", "qemu64", "-m", "16M", "-smp", "1"),
            *("-nodefaults", "-display", "none", "-netdev", "hubport,id=net0,hubid=0"),
            *("-device", "virtio-net-pci,id=nic0,netdev=net0,mac=02:00:4d:00:00:0a,romfile="),
            *("-qmp", f"unix:{self.directory / site}.sock,server=on,wait=off"),
            *(("-incoming", "defer") if standby else ()),
            *(MUTE if standby and muted else ()),
            *more,
        ]
        with (self.directory / f"{site}.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes[site] = process
        self._everything.append(process)
        return process

    async def watch(self, site: str, **overrides: Any) -> Agent:
        """Start an agent's driver for a site, in the place of an earlier one."""
        await self.unwatch(site)
        agent = self.agents[site] = Agent(self.options(**overrides), site)
        await agent.driver.start()
        return agent

    async def unwatch(self, site: str) -> None:
        """End the driver as an agent's end does."""
        if site in self.agents:
            await self.agents.pop(site).driver.close()

    async def protected(self, **overrides: Any) -> tuple[Agent, Agent]:
        """Both machines, both agents, and the first in sync with the second."""
        self.boot("one")
        self.boot("two", standby=True)
        first, second = [await self.watch(site, **overrides) for site in SITES]
        await until(lambda: first.seen.protection is Protection.PROTECTED and second.seen.in_sync)
        return first, second

    def signal(self, site: str, number: int) -> None:
        self.processes[site].send_signal(number)

    async def ask(self, site: str, command: str, **arguments: Any) -> Any:
        """Ask a QEMU that no agent is attached to."""
        client = QMPClient()
        await client.connect(str(self.directory / f"{site}.sock"))
        try:
            return await client.execute(command, arguments or None)
        finally:
            await client.disconnect()

    async def close(self) -> None:
        for site in tuple(self.agents):
            await self.unwatch(site)
        for process in self._everything:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()


async def until(condition: Callable[[], bool], limit_seconds: float = WAIT_SECONDS) -> None:
    """Return when it holds. Raises TimeoutError."""
    async with asyncio.timeout(limit_seconds):
        while not condition():  # noqa: ASYNC110 - what it looks at is not made of events
            await asyncio.sleep(0.01)
