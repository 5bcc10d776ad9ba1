"""FRR: a BGP speaker at every site, and BFD between them (RFC 5880, 5882): routing alone does the failover.

Both servers announce the service's address; the gateway prefers the primary's while it hears it. The daemons are the
machine's own programs, with sockets and configuration in the lab's directory.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.bench import routed
from tunnelswitch_lab.bench.ours import MULTIPLIER
from tunnelswitch_lab.bench.pair import start_copies, tool, wait_for_file
from tunnelswitch_lab.bench.routed import Link
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.testbed import Testbed

_PROGRAMS = Path("/usr/lib/frr")
PROGRAMS = (*(str(_PROGRAMS / name) for name in ("zebra", "bgpd", "bfdd")), "vtysh")
AS_NUMBER = 65000
# They leave a directory each in /var/tmp when they are killed (backtraces and such): in one of their own, it goes too.
_ALONE = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /var/tmp && exec "$@"', "sh")
# BFD's packets must not wait for a processor; keepalived and Corosync ask for the same themselves.
_IN_TIME = ("chrt", "--fifo", "50")
_USER = "frr"  # whom the daemons become
_READY_SECONDS = 30.0
# A session begins at one packet a second (RFC 5880, 6.8.3); the intervals that it agrees on come some packets later.
_SETTLE_SECONDS = 1.0


def home(layout: Layout, site: Site) -> Path:
    """Where a site's daemons have their sockets and configuration."""
    return layout.directory / f"frr-{site.name}"


def speaker(site: Site, own: str, peers: Iterable[tuple[str, Site, int]], bfd_ms: float | None) -> str:
    """bgpd's configuration. `peers` are addresses, sites and weights: the heaviest of several routes is used."""
    lines = [
        f"router bgp {AS_NUMBER + site.number}",
        f" bgp router-id {own}",
        " no bgp ebgp-requires-policy",  # RFC 8212 wants a policy; the lab's is to take what comes
        " no bgp default ipv4-unicast",
        " timers bgp 1 3",
    ]
    families = []
    for address, peer, weight in peers:
        lines += [
            f" neighbor {address} remote-as {AS_NUMBER + peer.number}",
            f" neighbor {address} timers connect 1",
            f" neighbor {address} advertisement-interval 0",
        ]
        lines += [f" neighbor {address} bfd"] if bfd_ms else []
        lines += [f" neighbor {address} bfd profile lab"] if bfd_ms else []
        families += [f"  neighbor {address} activate", f"  neighbor {address} weight {weight}"]
    announced = ["  redistribute kernel route-map service"] if site.is_server else []
    family = [" address-family ipv4 unicast", *announced, *families, " exit-address-family"]
    only = [
        f"ip prefix-list service permit {names.SERVICE_ADDRESS}/32",
        "route-map service permit 10",
        " match ip address prefix-list service",
    ]
    return "\n".join([*only, *lines, *family, ""])


def bfd_profile(interval_ms: float) -> str:
    """bfdd's configuration: one profile for every session."""
    times = [f"  {way}-interval {interval_ms:g}" for way in ("receive", "transmit")]
    return "\n".join(["bfd", " profile lab", f"  detect-multiplier {MULTIPLIER}", *times, " exit", "exit", ""])


async def start(bed: Testbed, between: Sequence[Link], weights: Mapping[str, int], bfd_ms: float | None) -> None:
    """Start zebra, bgpd and, with an interval, bfdd at every site; returns when all sessions stand.

    `weights` are those of the routes that come from each server, at the gateway. Raises LabError or TimeoutError.
    """
    layout = bed.layout
    for site in layout.sites:
        mine = [link for link in between if link.server == site or not site.is_server]
        peers = []
        for link in mine:
            other = layout.gateway if site.is_server else link.server
            peers.append((link.address(other), other, weights[link.server.name]))
        texts = {"zebra": "", "bgpd": speaker(site, mine[0].address(site), peers, bfd_ms)}
        if bfd_ms:
            texts["bfdd"] = bfd_profile(bfd_ms)
        await _start_daemons(bed, site, texts)
    await netns.wait_for(lambda: _established(layout, len(between)), "BGP sessions", _READY_SECONDS)
    if bfd_ms:
        await netns.wait_for(lambda: _bfd_up(layout, len(between)), "BFD sessions of FRR", _READY_SECONDS)


async def _start_daemons(bed: Testbed, site: Site, texts: dict[str, str]) -> None:
    place = home(bed.layout, site)
    place.mkdir(exist_ok=True)
    shutil.chown(place, _USER, _USER)
    for left in place.iterdir():
        left.unlink()
    for daemon, text in texts.items():
        configuration = place / f"{daemon}.conf"
        configuration.write_text(text, encoding="utf-8")
        command = [str(_PROGRAMS / daemon), "-f", str(configuration), "-i", str(place / f"{daemon}.pid")]
        command += ["-z", str(place / "zserv.api"), "--vty_socket", str(place)]
        command += ["--log", "stdout"]
        command += ["--bfdctl", str(place / "bfdd.sock")] if daemon == "bfdd" else []
        command += ["-P", "0"] if daemon != "bgpd" else ["-P", "0", "-l", "0.0.0.0"]
        before = [*_ALONE, *(_IN_TIME if daemon == "bfdd" else ())]
        proc = bed.spawn(site.namespace, [*before, *command], name=f"{daemon}-{site.name}")
        await wait_for_file(proc, place / f"{daemon}.vty")


async def ask(layout: Layout, site: Site, command: str) -> str:
    """What a site's daemons answer to a command of vtysh(1). Raises LabError."""
    return await tool("vtysh", "--vty_socket", str(home(layout, site)), "-c", command)


async def _established(layout: Layout, sessions: int) -> bool:
    said = json.loads(await ask(layout, layout.gateway, "show bgp ipv4 unicast summary json") or "{}")
    peers = said.get("peers", {}).values()
    return [peer["state"] for peer in peers] == ["Established"] * sessions


async def _bfd_up(layout: Layout, sessions: int) -> bool:
    said = json.loads(await ask(layout, layout.gateway, "show bfd peers json") or "[]")
    return [peer.get("status") for peer in said] == ["up"] * sessions


@dataclass
class FrrBfdBgp:
    """BGP to both servers, BFD on the sessions every `interval_ms`, times three."""

    interval_ms: float
    name: str = "frr-bfd-bgp"
    faults: tuple[str, ...] = ("host-loss",)
    programs: tuple[str, ...] = PROGRAMS
    record: type[Recording] = Recording
    does_not: str = (
        "notice a dead service on a live host; decide which copy serves (both must run); vote: who loses a path moves, "
        "and moves back as soon as the path is back; keep state"
    )

    async def start(self, bed: Testbed) -> None:
        between = routed.links(bed.layout)
        await start_copies(bed)
        await routed.build(bed.layout, between)
        await start(bed, between, {"primary": 200, "secondary": 100}, self.interval_ms)
        wanted = between[0].address(between[0].server)

        async def leads_to_primary() -> bool:
            return await routed.next_hop(bed.layout) == wanted

        await netns.wait_for(leads_to_primary, "the gateway's route to the primary", _READY_SECONDS)

    async def wait_ready(self, recording: Recording) -> None:
        """The sessions stand; what is left is that BFD reaches its pace."""
        await asyncio.sleep(_SETTLE_SECONDS)

    async def stop(self, bed: Testbed) -> None:
        """A reset undoes all of it."""
