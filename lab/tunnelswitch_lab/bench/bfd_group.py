"""Open vSwitch alone: a fast-failover group whose buckets watch BFD on two tunnels (ovs-ofctl(8), RFC 5880).

The gateway's datapath moves by itself when BFD says that the primary is gone. Nothing else is involved.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.bench.ours import BFD_SETTLES_INTERVALS, MULTIPLIER
from tunnelswitch_lab.bench.pair import TUNNELS, add_tunnels, start_copies, tool
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.testbed import Testbed

_UP_SECONDS = 15.0


@dataclass
class BfdGroup:
    """A group of type `ff` over T2 and T3, BFD at `interval_ms`, times three."""

    interval_ms: float
    name: str = "ovs-bfd-group"
    faults: tuple[str, ...] = ("host-loss",)
    programs: tuple[str, ...] = ("ovs-ofctl",)
    record: type[Recording] = Recording
    does_not: str = (
        "notice a dead service on a live host; decide which copy serves (both must run); vote: who loses a path moves"
    )

    async def start(self, bed: Testbed) -> None:
        await start_copies(bed)
        bfd = {
            "enable": "true",
            "min_tx": f"{self.interval_ms:g}",
            "min_rx": f"{self.interval_ms:g}",
            "mult": MULTIPLIER,
        }
        await add_tunnels(bed.layout, {f"bfd:{key}": value for key, value in bfd.items()})
        await self._forward(bed.layout)
        await netns.wait_for(lambda: _all_up(bed.layout), "BFD on T2 and T3", _UP_SECONDS)

    async def _forward(self, layout: Layout) -> None:
        ports = [port for port, _ in TUNNELS.values()]
        buckets = ",".join(f"bucket=watch_port:{port},actions=output:{port}" for port in ports)
        bridge = f"unix:{layout.gateway.directory / 'br-svc.mgmt'}"
        control = ["ovs-ofctl", "-O", "OpenFlow15"]
        await tool(*control, "add-group", bridge, f"group_id=1,type=ff,{buckets}")
        await tool(*control, "del-flows", bridge)
        await tool(*control, "add-flow", bridge, f"in_port={names.CLIENT_PORT},actions=group:1")
        for port in ports:
            await tool(*control, "add-flow", bridge, f"in_port={port},actions=output:{names.CLIENT_PORT}")

    async def wait_ready(self, recording: Recording) -> None:
        await asyncio.sleep(BFD_SETTLES_INTERVALS * self.interval_ms / 1000)

    async def stop(self, bed: Testbed) -> None:
        """A reset undoes all of it."""


async def _all_up(layout: Layout) -> bool:
    for port, _ in TUNNELS.values():
        query = [
            f"--db={layout.gateway.ovsdb}",
            "--timeout=5",
            "--format=json",
            "get",
            "Interface",
            port,
            "bfd_status:state",
        ]
        said = await tool("ovs-vsctl", "--if-exists", *query)
        if "up" not in json.dumps(said):
            return False
    return True
