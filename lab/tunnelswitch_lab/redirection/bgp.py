"""BGP, as SecondSite does it: the site that takes over announces the service's address, and the gateway prefers it.

A real bgpd (FRR) at both sites and the gateway. A redirection is one kernel route at the standby's router, which zebra
sees, bgpd announces, and the gateway's bgpd takes for better than the primary's. No BFD: detection is the agents'.
"""

from __future__ import annotations

from tunnelswitch_lab import netns
from tunnelswitch_lab.bench import frr, routed
from tunnelswitch_lab.options import CHECKPOINT_INTERVALS_MS
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.redirection.methods import ASIDE, STANDING_KEYS
from tunnelswitch_lab.testbed import Testbed

# Who announces later must win, also while the one before still announces: that one is not always dead.
_WEIGHTS = {"primary": 100, "secondary": 200}
_ROUTE_SECONDS = 15.0


class Bgp:
    """One announcement more."""

    name = "bgp"
    does = "the standby's site announces the service's address by BGP (FRR, no BFD), and the gateway prefers it"
    bridge = ASIDE
    programs: tuple[str, ...] = frr.PROGRAMS
    record: type[Recording] = Recording

    async def prepare(self, bed: Testbed) -> None:
        layout = bed.layout
        primary, standby = layout.servers
        between = routed.links(layout, (STANDING_KEYS[primary.name], STANDING_KEYS[standby.name]))
        await routed.build(layout, between, leading=(primary.name,))
        await bed.start_service(CHECKPOINT_INTERVALS_MS["process"], "process", 0)
        await frr.start(bed, between, _WEIGHTS, bfd_ms=None)
        wanted = between[0].address(primary)

        async def leads_to_primary() -> bool:
            return await routed.next_hop(layout) == wanted

        await netns.wait_for(leads_to_primary, "the gateway's route to the primary", _ROUTE_SECONDS)

    def act(self, bed: Testbed) -> list[str] | None:
        return ["--lab", bed.layout.name]

    async def restore(self, bed: Testbed) -> None:
        """A reset undoes all of it."""
