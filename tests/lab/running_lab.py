"""A lab that runs, agents and service included, as tests use it: what its processes say, its tunnels, its client."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from client_view import Client, View

from tunnelswitch_lab import netns
from tunnelswitch_lab.agents import executable
from tunnelswitch_lab.procs import Proc
from tunnelswitch_lab.testbed import Testbed

HELD_SECONDS = 0.4  # three windows of the labs here
MOMENT_SECONDS, WATCHED_SECONDS = 0.5, 120.0


class Running:
    """A lab with agents and service, as the tests use it."""

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self.client = Client(bed)

    def proc(self, name: str) -> Proc:
        return next(proc for proc in self.bed._state.procs if proc.name == name and proc.alive)

    def ovs(self, site: str, *arguments: str) -> str:
        command = ["ovs-vsctl", f"--db={self.bed.layout.site(site).ovsdb}", "--timeout=20", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

    def tunnels(self, site: str = "gateway") -> set[str]:
        return {port for port in self.ovs(site, "list-ports", "br-svc").split() if port.startswith(("t2-", "t3-"))}

    def logs(self) -> str:
        programs = [proc for proc in self.bed._state.procs if proc.name.startswith(("agent-", "switcher-"))]
        return "".join(Path(proc.log).read_text() for proc in programs)

    async def get(self, site: str, endpoint: str, path: str) -> tuple[int, bytes]:
        where = self.bed.layout.site(site)
        address = where.agent_metrics if endpoint == "agent" else where.switcher_metrics
        return await netns.http_get(where.namespace, address, path)

    async def metric(self, site: str, endpoint: str, name: str) -> float:
        code, body = await self.get(site, endpoint, "/metrics")
        assert code == 200
        lines = [line for line in body.decode().splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def epoch(self) -> int:
        return int(await self.metric("gateway", "switcher", "tunnelswitch_epoch{"))

    async def until(self, true: Callable[[], Awaitable[bool]], what: str) -> None:
        await netns.wait_for(true, what, 30.0)

    async def until_protected(self, wanted: bool = True) -> None:
        async def protected() -> bool:
            return await self.metric("gateway", "switcher", "tunnelswitch_protected{") == float(wanted)

        await self.until(protected, "protection" if wanted else "no protection")

    async def until_paths_up(self) -> None:
        """As the gateway sees them: BFD finds its peers at one packet a second, and what came up is held in doubt."""

        async def up() -> bool:
            return await self.metric("gateway", "agent", "tunnelswitch_path_up{") == 2

        await self.until(up, "both paths up")
        await asyncio.sleep(HELD_SECONDS)

    async def until_tunnels(self, wanted: set[str]) -> None:
        async def there() -> bool:
            return self.tunnels() == wanted

        await self.until(there, f"tunnels {wanted}")

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[View]:
        """What the client sees meanwhile, from a moment before to a moment after."""
        view, enough = View(), threading.Event()
        watching = asyncio.create_task(asyncio.to_thread(self.client.watch, WATCHED_SECONDS, view, enough))
        try:
            await asyncio.sleep(MOMENT_SECONDS)
            yield view
            await asyncio.sleep(MOMENT_SECONDS)
        finally:
            enough.set()
            await watching

    async def until_answered(self, view: View, site: str) -> None:
        async def answered() -> bool:
            return view.copies[-1:] == [site]

        await self.until(answered, f"an answer from {site}")

    def start_program(self, kind: str, site: str) -> None:
        layout = self.bed.layout
        command = [str(executable()), kind, "--config", str(layout.deployment_file), "--site", site]
        self.bed.spawn(site, command, name=f"{kind}-{site}")
