"""The protected service of the workload `process`: one active and one standby copy, started by the lab.

An agent is never its parent: killing an agent leaves the service serving.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.agents import check_alive
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.procs import Proc

PROGRAM = "tunnelswitch_lab.workload.rtp_service"
_START_SECONDS = 10.0


async def start(
    layout: Layout, spawn: Callable[..., Proc], checkpoint_interval_ms: float, realtime_priority: int = 0
) -> None:
    """Start both copies, without anything that an earlier one left. Raises LabError if one does not start."""
    clear(layout)
    started = []
    for server in layout.servers:
        layout.service_state_directory(server.name).mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", PROGRAM, *_arguments(layout, server, checkpoint_interval_ms)]
        command += ["--realtime", str(realtime_priority)]
        started.append(spawn(server.service_namespace, command, name=f"service-{server.name}"))
    for proc in started:
        await wait_for(proc, layout.service_state_directory(proc.site) / "service.pid")


async def wait_for(proc: Proc, sign: Path) -> None:
    """Return when a copy has made the file that says it is there. Raises LabError if it does not in time."""
    try:
        await netns.wait_for(lambda: _runs(proc, sign.exists), proc.name, _START_SECONDS)
    except TimeoutError as error:
        raise LabError(f"{error} (log: {proc.log})") from None


async def _runs(proc: Proc, says_so: Callable[[], bool]) -> bool:
    check_alive(proc)
    return says_so()


def _arguments(layout: Layout, server: Site, checkpoint_interval_ms: float) -> list[str]:
    peer = next(other for other in layout.servers if other != server)
    options = {
        "--site": server.name,
        "--role": "active" if server.name == names.SERVERS[0] else "standby",
        "--listen": names.SERVICE_ADDRESS,
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
