"""What the peers share: two copies that both answer, and a tunnel from the gateway to each of them that stays.

None of the peers decides which copy serves, so both run as active ones; only packets decide whom a client meets.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns, procs
from tunnelswitch_lab.agents import check_alive
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.procs import Proc
from tunnelswitch_lab.service import PROGRAM
from tunnelswitch_lab.testbed import Testbed

TUNNELS = {"primary": ("T2", names.T2_KEY), "secondary": ("T3", names.T3_KEY)}
HEALTH_PORT = 5007
# Whether the copy on this machine answers, as an exit status.
HEALTH_CHECK = (str(Path(__file__).parent / "files" / "answers"), "127.0.0.1", str(HEALTH_PORT))
_TOOL_SECONDS = 5.0
_START_SECONDS = 10.0


async def start_copies(bed: Testbed) -> dict[str, Proc]:
    """Start a copy at each server, both active, under the names by which faults find them. Raises LabError."""
    copies = {}
    for server in bed.layout.servers:
        directory = bed.layout.service_state_directory(server.name)
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.iterdir():
            left.unlink()
        peer = next(other for other in bed.layout.servers if other != server)
        command = [sys.executable, "-m", PROGRAM, "--site", server.name, "--role", "active"]
        command += ["--listen", names.SERVICE_ADDRESS, "--state-dir", str(directory)]
        command += ["--rtp-port", str(names.RTP_PORT), "--probe-port", str(names.PROBE_PORT)]
        command += ["--health-port", str(HEALTH_PORT)]
        for option, address in (("bind", server.replication_address), ("peer", peer.replication_address)):
            command += [f"--replicate-{option}", f"{address}:{names.REPLICATION_PORT}"]
        copies[server.name] = bed.spawn(server.service_namespace, command, name=f"service-{server.name}")
    for name, proc in copies.items():
        await wait_for_file(proc, bed.layout.service_state_directory(name) / "service.pid")
    return copies


async def wait_for_file(proc: Proc, path: Path) -> None:
    """Return when a process has made a file that says that it runs. Raises LabError if it ends before, TimeoutError."""

    async def made() -> bool:
        check_alive(proc)
        return await asyncio.to_thread(path.exists)

    await netns.wait_for(made, proc.name, _START_SECONDS)


def set_kernel(namespace: str, **settings: int) -> None:
    """Write settings below /proc/sys/net/ipv4 of a namespace; `conf__all__rp_filter` is conf/all/rp_filter."""
    with netns.entered(namespace):
        for name, value in settings.items():
            Path("/proc/sys/net/ipv4", *name.split("__")).write_text(f"{value}")


async def add_tunnels(
    layout: Layout, settings: Mapping[str, object] | None = None, keys: Mapping[str, int] | None = None
) -> None:
    """Join the gateway with both servers, for good; `settings` are further columns of every tunnel's interface, `keys`
    those of GRE by server."""
    more = [f"{key}={value}" for key, value in (settings or {}).items()]
    for server in layout.servers:
        await know(layout.gateway, server)
        await know(server, layout.gateway)
        port, usual_key = TUNNELS[server.name]
        key = keys[server.name] if keys else usual_key
        for here, there in ((layout.gateway, server), (server, layout.gateway)):
            options = ["type=gre", f"options:remote_ip={there.underlay_address}", f"options:key={key}"]
            tunnel = ["add-port", "br-svc", port, "--", "set", "Interface", port, *options, *more]
            await tool("ovs-vsctl", f"--db={here.ovsdb}", f"--timeout={_TOOL_SECONDS:.0f}", *tunnel)


async def know(here: Site, there: Site) -> None:
    """Resolve a neighbour beforehand, as our mesh does: no peer shall lose time to a cold tunnel."""
    known = ["tnl/neigh/set", "br-phy", there.underlay_address, there.underlay_mac]
    await tool("ovs-appctl", "-t", str(here.switch_control), *known)


async def tool(*command: str) -> str:
    """Run a tool to its end; returns what it printed. Raises LabError with its complaint."""
    try:
        return await procs.check_output(list(command), _TOOL_SECONDS + 1)
    except (RuntimeError, TimeoutError) as error:
        raise LabError(f"{command[0]} failed: {error}") from None
