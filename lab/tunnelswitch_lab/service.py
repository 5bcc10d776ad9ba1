"""The protected service of the workload `process`: one active and one standby copy, started by the lab.

An agent is never its parent: killing an agent leaves the service serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns, procs
from tunnelswitch_lab.agents import check_alive
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.procs import Proc

PROGRAM = "tunnelswitch_lab.workload.rtp_service"
_START_SECONDS = 10.0


async def start(
    layout: Layout,
    spawn: Callable[..., Proc],
    checkpoint_interval_ms: float,
    realtime_priority: int = 0,
    standby_address: str = names.SERVICE_ADDRESS,
) -> None:
    """Start both copies, without anything that an earlier one left. Raises LabError if one does not start.

    The standby serves under its active's address, as a virtual machine does, unless it is given one of its own.
    """
    clear(layout)
    await asyncio.gather(
        *(
            start_copy(
                layout,
                server,
                spawn,
                checkpoint_interval_ms,
                realtime_priority,
                standby=server.name != names.SERVERS[0],
                address=names.SERVICE_ADDRESS if server.name == names.SERVERS[0] else standby_address,
            )
            for server in layout.servers
        )
    )


async def start_copy(
    layout: Layout,
    server: Site,
    spawn: Callable[..., Proc],
    checkpoint_interval_ms: float,
    realtime_priority: int = 0,
    *,
    standby: bool,
    address: str = names.SERVICE_ADDRESS,
) -> Proc:
    """Start one copy, and return when it says that it runs. Raises LabError if it does not start."""
    directory = layout.service_state_directory(server.name)
    directory.mkdir(parents=True, exist_ok=True)
    _repeat_quickly(server)
    pid_file = directory / "service.pid"
    pid_file.unlink(missing_ok=True)
    role = "standby" if standby else "active"
    command = [sys.executable, "-m", PROGRAM, *_arguments(layout, server, role, checkpoint_interval_ms, address)]
    command += ["--realtime", str(realtime_priority)]
    # As the hypervisor of a virtual machine: on a host of its own nothing would keep it from answering.
    nice = procs.FURNITURE_NICE
    proc = spawn(server.service_namespace, command, name=f"service-{server.name}", nice=nice)
    await wait_for(proc, pid_file)
    return proc


async def wait_for(proc: Proc, sign: Path) -> None:
    """Return when a copy has made the file that says it is there. Raises LabError if it does not in time."""
    try:
        await netns.wait_for(lambda: _runs(proc, sign.exists), proc.name, _START_SECONDS)
    except TimeoutError as error:
        raise LabError(f"{error} (log: {proc.log})") from None


def _repeat_quickly(server: Site) -> None:
    """A segment that T1 loses while the site's switch is changed is not to cost 200 ms (tcp(7), from Linux 6.11 on)."""
    with netns.entered(server.service_namespace), contextlib.suppress(FileNotFoundError):
        Path("/proc/sys/net/ipv4/tcp_rto_min_us").write_text("10000")


async def _runs(proc: Proc, says_so: Callable[[], bool]) -> bool:
    check_alive(proc)
    return says_so()


def _arguments(layout: Layout, server: Site, role: str, checkpoint_interval_ms: float, address: str) -> list[str]:
    peer = next(other for other in layout.servers if other != server)
    options = {
        "--site": server.name,
        "--role": role,
        "--listen": address,
        "--rtp-port": names.RTP_PORT,
        "--probe-port": names.PROBE_PORT,
        "--replicate-bind": f"{server.replication_address}:{names.REPLICATION_PORT}",
        "--replicate-peer": f"{peer.replication_address}:{names.REPLICATION_PORT}",
        "--checkpoint-interval-ms": f"{checkpoint_interval_ms:g}",
        "--state-dir": layout.service_state_directory(server.name),
        "--notify": layout.notify_socket(server.name),
    }
    return [str(word) for option in options.items() for word in option]


def clear(layout: Layout) -> None:
    """Forget what earlier copies wrote down."""
    for server in layout.servers:
        directory = layout.service_state_directory(server.name)
        for entry in directory.iterdir() if directory.exists() else ():
            entry.unlink()
