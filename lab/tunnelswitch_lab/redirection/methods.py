"""What a way of redirection is, and the first two: tunnels switched at the gateway, announcements on a flat layer 2.

A method lays the clients' ways before the agents start, and does one act at the standby's site when the decision to
move there is committed. Detection, quorum, decision and promotion are the agents' own for every method.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

from tunnelswitch_lab import layout as names
from tunnelswitch_lab.bench.pair import add_tunnels
from tunnelswitch_lab.faults import PacketFilter
from tunnelswitch_lab.layout import Site
from tunnelswitch_lab.options import CHECKPOINT_INTERVALS_MS
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.testbed import Testbed

# Keys of the tunnels that stay, beside those that the agents switch.
STANDING_KEYS = {"primary": 12, "secondary": 13}
# Where the agents switch when clients do not come that way: all of Algorithm 1 runs, and no client notices.
ASIDE = "br-aside"


class Method(Protocol):
    """One way of redirection.

    Attributes:
        name: as in the results.
        does: what happens at a failover, for whoever reads the table.
        bridge: on which the agents switch tunnels.
        programs: what must be on the machine for it.
        record: how the client is started and watched.
    """

    name: str
    does: str
    bridge: str
    programs: tuple[str, ...]
    record: type[Recording]

    async def prepare(self, bed: Testbed) -> None:
        """Lay the clients' ways and start both copies, in a lab that was just reset. Raises LabError."""

    def act(self, bed: Testbed) -> list[str] | None:
        """The redirector's command line after the method's name, or None if the agents do it all."""

    async def restore(self, bed: Testbed) -> None:
        """Undo what a reset of the lab would not."""


class Tunnel:
    """Ours: the switcher replaces T2 by T3 at the gateway in one transaction (the paper's Algorithm 1)."""

    name = "tunnel"
    does = "the gateway's tunnel is replaced in one guarded transaction"
    bridge = "br-svc"
    programs: tuple[str, ...] = ()
    record: type[Recording] = Recording

    async def prepare(self, bed: Testbed) -> None:
        await bed.start_service(CHECKPOINT_INTERVALS_MS["process"], "process", 0)

    def act(self, bed: Testbed) -> list[str] | None:
        return None

    async def restore(self, bed: Testbed) -> None:
        """Nothing."""


class Garp:
    """The paper's "original Remus": one layer 2 over both tunnels; the copy that takes over, with the same MAC and
    address, announces itself, and the gateway's switch learns where that MAC is now."""

    name = "garp"
    does = "the copy announces itself by gratuitous ARP and RARP on a flat layer 2"
    bridge = ASIDE
    programs: tuple[str, ...] = ()
    record: type[Recording] = Recording

    async def prepare(self, bed: Testbed) -> None:
        for server in bed.layout.servers:
            _say_nothing_when_dead(server)
        await add_tunnels(bed.layout, keys=STANDING_KEYS)
        await bed.start_service(CHECKPOINT_INTERVALS_MS["process"], "process", 0)

    def act(self, bed: Testbed) -> list[str] | None:
        standby = bed.layout.servers[1]
        return ["--namespace", standby.service_namespace, "--device", "eth0", "--mac", names.SERVICE_MAC]

    async def restore(self, bed: Testbed) -> None:
        """A reset undoes the rest; the silence of the dead suits every method."""


def _say_nothing_when_dead(server: Site) -> None:
    """A dead machine is silent. The kernel under a dead process refuses packets (ICMP) from the very MAC that the other
    copy has just announced, and would take it back."""
    with contextlib.closing(PacketFilter(server.service_namespace)) as kernel:
        chain = "{ type filter hook output priority 0; policy accept; }"
        kernel.run(f"add table ip silence; flush table ip silence; add chain ip silence out {chain}")
        kernel.run("add rule ip silence out icmp type destination-unreachable drop")
