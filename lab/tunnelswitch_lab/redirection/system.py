"""Our detection, decision and promotion with any method of redirection, as a system that the bench can measure."""

from __future__ import annotations

import asyncio
import sys
import time

from tunnelswitch.pki.identities import VIEWER
from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.bench.ours import BFD_SETTLES_INTERVALS, MULTIPLIER
from tunnelswitch_lab.bench.pair import tool, wait_for_file
from tunnelswitch_lab.experiment import wait_at_rest, wait_protected
from tunnelswitch_lab.measure.story import connected
from tunnelswitch_lab.options import LabError, LabOptions
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.redirection.methods import Method
from tunnelswitch_lab.testbed import Testbed

_VSCTL_SECONDS = 5
_BFD_SECONDS = 3.0  # RFC 5880, 6.8.3 again: three packets, as long as they come once a second
_SETTLED_SECONDS = 30.0


class Redirected:
    """A method under the agents with heartbeats and BFD at `interval_ms`, times three."""

    faults: tuple[str, ...] = ("host-loss", "service-crash")
    does_not = ""

    def __init__(self, method: Method, interval_ms: float = 10, name: str = "") -> None:
        self.method = method
        self.interval_ms = interval_ms
        self.name = name or method.name
        self.workload = method.workload
        self.programs = method.programs
        self.record = method.record

    async def start(self, bed: Testbed) -> None:
        """As `System` says."""
        await self.method.prepare(bed)
        if self.method.bridge != "br-svc":
            for site in bed.layout.sites:
                bridge = ["add-br", self.method.bridge, "--", "set", "Bridge", self.method.bridge]
                command = [f"--db={site.ovsdb}", f"--timeout={_VSCTL_SECONDS}", *bridge, "datapath_type=netdev"]
                await tool("ovs-vsctl", *command)
        await bed.start_agents(
            LabOptions(
                bed.layout.name,
                self.interval_ms / 1000,
                MULTIPLIER,
                workload=self.method.workload,
                checkpoint_interval_ms=self.method.checkpoint_interval_ms,
                bridge=self.method.bridge,
            )
        )
        await self._start_redirector(bed)

    async def _start_redirector(self, bed: Testbed) -> None:
        told = self.method.act(bed)
        if told is None:
            return
        layout, standby = bed.layout, bed.layout.servers[1]
        ready = layout.directory / "redirector.ready"
        ready.unlink(missing_ok=True)
        act, *options = told
        command = [sys.executable, "-m", "tunnelswitch_lab.redirection.redirector", act]
        command += ["--url", standby.nats_url, "--cluster", layout.name, "--site", standby.name]
        command += ["--key", str(VIEWER.seed(layout.keys)), "--ready", str(ready), *options]
        await wait_for_file(bed.spawn(standby.namespace, command, name="redirector"), ready)

    async def wait_ready(self, recording: Recording) -> None:
        """As `System` says."""
        await wait_protected(recording)

        async def settled() -> bool:
            events = await asyncio.to_thread(recording.events, time.time() - 1)
            return connected(events, names.SITES, max(_BFD_SECONDS, BFD_SETTLES_INTERVALS * self.interval_ms / 1000))

        try:
            await netns.wait_for(settled, "BFD at its full pace between all sites", _SETTLED_SECONDS, 0.25)
        except TimeoutError as error:
            raise LabError(f"{error}; the machine is too busy for {self.interval_ms:g} ms") from None
        await wait_at_rest(recording)

    async def stop(self, bed: Testbed) -> None:
        """As `System` says."""
        await bed.stop("redirector", "service-")
        await self.method.restore(bed)
