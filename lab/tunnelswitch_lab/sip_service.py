"""The protected service of the workload `sip`: sipp answers calls and echoes their voice, an active and a standby copy.

An agent is never its parent. It holds no state that a caller could miss, so there is nothing to checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import service
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.procs import Proc

SIP_PORT = 5060
HERE = Path(__file__).parent / "workload" / "sip"


def check_sipp() -> None:
    """Raise LabError, with the remedy, where there is no sipp."""
    if shutil.which("sipp") is None:
        raise LabError("sipp is not installed: apt install sip-tester")


async def start(layout: Layout, spawn: Callable[..., Proc]) -> None:
    """Start both copies, without anything that an earlier one left. Raises LabError if one does not start."""
    service.clear(layout)
    started = []
    for server in layout.servers:
        directory = layout.service_state_directory(server.name)
        directory.mkdir(parents=True, exist_ok=True)
        role = "active" if server.name == names.SERVERS[0] else "standby"
        command = [HERE / "answer", directory, role, names.SERVICE_ADDRESS, SIP_PORT, names.RTP_PORT]
        started.append(spawn(server.service_namespace, [str(word) for word in command], name=f"service-{server.name}"))
    for proc in started:
        await service.wait_for(proc, layout.service_state_directory(proc.site) / "service.identity")
