"""What a host does by itself: it boots after a loss, and its init system keeps a copy of the service there.

The copy is always started as a standby, as `deploy/systemd/tunnelswitch-standby@.service` does it: whoever was active
before has lost the right to be.
"""

from __future__ import annotations

import asyncio
import contextlib

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns, procs, switches
from tunnelswitch_lab.agents import executable
from tunnelswitch_lab.options import carries
from tunnelswitch_lab.testbed import Testbed

RESTART_SECONDS = 1.0
_LOOK_SECONDS = 0.2
_BOOT_SECONDS = 30.0


class Init:
    """The init systems of both servers, as far as the service goes: what ended is started again after a second.

    Attributes:
        away: hosts that are lost.
        started: copies of the service that were started again.
    """

    def __init__(self, bed: Testbed) -> None:
        self._bed = bed
        self.away: set[str] = set()
        self.started = 0

    async def run(self) -> None:
        """For ever. Raises LabError when a copy does not start."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for site in names.SERVERS:
                if await self._has_ended(site, f"service-{site}"):
                    await self._bed.start_standby(site)
                    self.started += 1
                if carries(self._bed.options) and await self._has_ended(site, f"carrier-{site}"):
                    self._bed.start_again(f"carrier-{site}")

    async def _has_ended(self, site: str, name: str) -> bool:
        """Is it to be started? A host that is lost meanwhile starts nothing."""
        if site in self.away or self._bed.find(name).alive:
            return False
        await asyncio.sleep(RESTART_SECONDS)
        return site not in self.away and not self._bed.find(name).alive


async def boot(bed: Testbed, name: str) -> None:
    """Power is back: the link, the switch with the database that it had and without client tunnels, NATS, the agent.

    Raises LabError, OSError, RuntimeError or TimeoutError if something does not start.
    """
    site = bed.layout.site(name)
    await bed.heal()
    for stale in (site.database_socket, site.switch_control):
        stale.unlink(missing_ok=True)
    bed.start_again(f"ovsdb-{name}")

    async def listening() -> bool:
        return site.database_socket.exists()

    await netns.wait_for(listening, f"ovsdb-server of {name}", _BOOT_SECONDS, 0.05)
    darken = [str(executable()), "darken", "--config", str(bed.layout.deployment_file), "--site", name]
    await procs.check_output(darken, _BOOT_SECONDS, site.namespace)
    bed.start_again(f"vswitchd-{name}")

    async def addressed() -> bool:
        with contextlib.suppress(LookupError):
            await switches.give_address(site)
            return True
        return False

    await netns.wait_for(addressed, f"br-phy of {name}", _BOOT_SECONDS, 0.05)
    bed.start_again(f"nats-{name}")
    if carries(bed.options):
        bed.start_again(f"carrier-{name}")
    bed.start_again(f"agent-{name}")
