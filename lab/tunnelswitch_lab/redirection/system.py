"""Our detection, decision and promotion with any method of redirection, as a system that the bench can measure."""

from __future__ import annotations

import asyncio
import sys

from tunnelswitch.pki.identities import VIEWER
from tunnelswitch_lab.bench.ours import BFD_SETTLES_INTERVALS, MULTIPLIER
from tunnelswitch_lab.bench.pair import tool, wait_for_file
from tunnelswitch_lab.experiment import wait_protected
from tunnelswitch_lab.options import CHECKPOINT_INTERVALS_MS, LabOptions
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.redirection.methods import Method
from tunnelswitch_lab.testbed import Testbed

_VSCTL_SECONDS = 5


class Redirected:
    """A method under the agents with heartbeats and BFD at `interval_ms`, times three."""

    faults: tuple[str, ...] = ("host-loss", "service-crash")
    does_not = ""

    def __init__(self, method: Method, interval_ms: float = 10) -> None:
        self.method = method
        self.interval_ms = interval_ms
        self.name = method.name
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
        interval_ms = CHECKPOINT_INTERVALS_MS["process"]
        await bed.start_agents(
            LabOptions(
                bed.layout.name,
                self.interval_ms / 1000,
                MULTIPLIER,
                checkpoint_interval_ms=interval_ms,
                bridge=self.method.bridge,
            )
        )
        await self._start_redirector(bed)

    async def _start_redirector(self, bed: Testbed) -> None:
        options = self.method.act(bed)
        if options is None:
            return
        layout, standby = bed.layout, bed.layout.servers[1]
        ready = layout.directory / "redirector.ready"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tunnelswitch_lab.redirection.redirector", self.method.name]
        command += ["--url", standby.nats_url, "--cluster", layout.name, "--site", standby.name]
        command += ["--key", str(VIEWER.seed(layout.keys)), "--ready", str(ready), *options]
        await wait_for_file(bed.spawn(standby.namespace, command, name="redirector"), ready)

    async def wait_ready(self, recording: Recording) -> None:
        """As `System` says."""
        await wait_protected(recording)
        await asyncio.sleep(BFD_SETTLES_INTERVALS * self.interval_ms / 1000)

    async def stop(self, bed: Testbed) -> None:
        """As `System` says."""
        await bed.stop("redirector", "service-")
        await self.method.restore(bed)
