"""Two hosts under a stand-in Xen, the real keeper on each, and drivers that attach to them: all real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from xen_domains import changed

from tunnelswitch.config import Xen, XenSite
from tunnelswitch.core.actions import Fence, Promote
from tunnelswitch.core.events import ServiceSeen
from tunnelswitch.core.facts import Reason
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.replication.xen import XenDriver

WAIT_SECONDS = 30.0
POLL_SECONDS = 0.02
STAMP = Stamp(7, "gw.a1.3")
HERE, THERE = "primary", "secondary"
AGENTS = Path(__file__).parents[2] / "agents"


def promote_action(run: str = "", deadline_seconds: float = 20.0) -> Promote:
    return Promote("pbx", run, STAMP, Reason.PROOF, deadline_seconds)


def fence_action(run: str, deadline_seconds: float = 20.0) -> Fence:
    return Fence("pbx", run, STAMP, Reason.OPERATOR, deadline_seconds)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Host:
    """One host: its domains, its keeper, and the driver of an agent there with everything that it emitted."""

    def __init__(self, directory: Path, site: str, options: Xen) -> None:
        self.directory, self.site, self.options = directory, site, options
        self.events: list[Any] = []
        self.counts: Counter[str] = Counter()
        self.keeper: asyncio.subprocess.Process | None = None
        self.driver: XenDriver | None = None
        directory.mkdir()
        (directory / "calls").touch()
        with changed(directory):
            pass
        for name in ("xl", "xenstore-watch"):
            tool = directory / name
            tool.write_text(f'#!/bin/sh\nexec {sys.executable} -S {Path(__file__).with_name("fake_xl.py")} "$@"\n')
            tool.chmod(tool.stat().st_mode | stat.S_IXUSR)

    def create(self, name: str = "pbx", state: str = "-b----", disks: tuple[dict[str, Any], ...] = ()) -> int:
        with changed(self.directory) as table:
            table["last"] += 1
            table["domains"][str(table["last"])] = {"name": name, "state": state, "disks": list(disks)}
            return int(table["last"])

    def change(self, domid: int, **fields: str) -> None:
        with changed(self.directory) as table:
            table["domains"][str(domid)] |= fields

    def remove(self, domid: int) -> None:
        with changed(self.directory) as table:
            del table["domains"][str(domid)]

    def names(self) -> dict[str, str]:
        """State by name of every domain."""
        table = json.loads((self.directory / "domains.json").read_text())
        return {one["name"]: one["state"] for one in table["domains"].values()}

    def trouble(self, name: str) -> Path:
        path = self.directory / name
        path.touch()
        return path

    def calls(self, verb: str) -> list[str]:
        return [line for line in (self.directory / "calls").read_text().splitlines() if line.split()[0] == verb]

    async def start_keeper(self) -> asyncio.subprocess.Process:
        with (self.directory / "keeper.log").open("ab") as log:
            self.keeper = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "xenkeeper", "--socket", str(self.directory / "keeper.sock")),
                env={
                    **os.environ,
                    "FAKE_XEN": str(self.directory),
                    "PATH": f"{self.directory}:{os.environ['PATH']}",
                    "PYTHONPATH": str(AGENTS),
                },
                stderr=log,
            )
        return self.keeper

    async def stop_keeper(self, number: int = signal.SIGKILL) -> None:
        if self.keeper is not None and self.keeper.returncode is None:
            self.keeper.send_signal(number)
            await self.keeper.wait()

    async def start_driver(self) -> XenDriver:
        self.driver = XenDriver("pbx", self.options, self.site, self.events.append, self._count)
        await self.driver.start()
        return self.driver

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1

    async def stop_driver(self) -> None:
        if self.driver is not None:
            await self.driver.close()
            self.driver = None

    @property
    def seen(self) -> ServiceSeen:
        """What the driver said last."""
        found = [event for event in self.events if isinstance(event, ServiceSeen)]
        return found[-1] if found else ServiceSeen("pbx", "", "unknown", None, False)  # type: ignore[arg-type]

    def emitted(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def log(self) -> str:
        return (self.directory / "keeper.log").read_text()


class Pair:
    """Two hosts that protect one guest between them."""

    def __init__(self, directory: Path) -> None:
        ports = {site: free_port() for site in (HERE, THERE)}
        sites = {site: XenSite(migration_address=f"127.0.0.1:{port}") for site, port in ports.items()}
        self.hosts = {
            site: Host(
                directory / site,
                site,
                Xen(
                    keeper_socket=str(directory / "{site}/keeper.sock"),
                    sites=sites,
                    checkpoint_interval_ms=50,
                    stall_seconds=10.0,
                    silence_seconds=20.0,
                    timeout_seconds=10.0,
                ),
            )
            for site in sites
        }
        self.here, self.there = self.hosts[HERE], self.hosts[THERE]

    async def start(self) -> None:
        for host in self.hosts.values():
            await host.start_keeper()
            await host.start_driver()

    async def start_protected(self, **options: float) -> None:
        """The guest runs here, and its copy there is in sync. `options` are fields of `Xen` for both sites."""
        for host in self.hosts.values():
            host.options = replace(host.options, **options)
        self.here.create()
        await self.start()
        await eventually(lambda: self.here.seen.in_sync and self.there.seen.in_sync)

    async def close(self) -> None:
        for host in self.hosts.values():
            await host.stop_driver()
            await host.stop_keeper()


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait for what a keeper or a driver brings about."""
    for _ in range(int(WAIT_SECONDS / POLL_SECONDS)):
        if condition():
            return
        await asyncio.sleep(POLL_SECONDS)
    raise AssertionError("did not happen in time")
