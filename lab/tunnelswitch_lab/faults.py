"""The faults a lab can inject, each with the verdict that the agents are expected to reach.

The catalogue is data; `Injector` carries a fault out. Everything slow is prepared before the act, so that the time it
returns is the time of the fault. It judges nothing: comparing verdicts with expectations is the experiment's work.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from pyroute2 import AsyncIPRoute

from tunnelswitch.config import load
from tunnelswitch.errors import TunnelswitchError
from tunnelswitch.processes.operating import Operator
from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns, procs
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.procs import Proc

_TABLE = "bridge tunnelswitch_lab"


class Verdict(StrEnum):
    """What a quorum may conclude from a fault."""

    SUSPICION = "suspicion"
    PROOF = "proof"
    CUT_OFF = "cut-off"
    OPERATOR = "operator"
    NONE = "none"


@dataclass(frozen=True)
class Fault:
    """A fault at the active site, and what must follow: the verdict, whether the group moves, who then serves."""

    name: str
    does: str
    verdict: Verdict
    failover: bool

    def expected_active(self, active: str) -> str:
        """The site that must be active afterwards, when `active` was before."""
        return next(name for name in names.SERVERS if name != active) if self.failover else active


FAULTS = {
    fault.name: fault
    for fault in (
        Fault(
            "host-loss",
            "cuts the active site off the WAN and kills every process of the site and its service",
            Verdict.SUSPICION,
            failover=True,
        ),
        Fault("service-crash", "kills the active copy of the service", Verdict.PROOF, failover=True),
        Fault("agent-crash", "kills the active site's agent; the service keeps serving", Verdict.NONE, failover=False),
        Fault("nats-crash", "kills the active site's NATS node", Verdict.NONE, failover=False),
        Fault(
            "link-cut:T1",
            "drops the checkpoints' tunnel between the servers; the group becomes unprotected",
            Verdict.NONE,
            failover=False,
        ),
        Fault(
            "link-cut:T2",
            "drops the active site's client tunnel; the active consents to hand over",
            Verdict.CUT_OFF,
            failover=True,
        ),
        Fault(
            "link-cut:underlay",
            "cuts the active site off the WAN; everything on it stays alive",
            Verdict.SUSPICION,
            failover=True,
        ),
    )
}


# No fault at all, but measured like one.
SWITCHOVER = Fault(
    "switchover", "has an operator's command move the healthy service to the standby", Verdict.OPERATOR, failover=True
)
EVENTS = {**FAULTS, SWITCHOVER.name: SWITCHOVER}
_SWITCHOVER_SECONDS = 10.0


def find(name: str) -> Fault:
    """The fault called `name`. Raises ValueError that lists the known ones."""
    if name not in EVENTS:
        raise ValueError(f"no fault {name!r}: the known ones are {', '.join(EVENTS)}")
    return EVENTS[name]


class Injector:
    """Carries out faults in one lab, on sockets that are open already. `find_proc` finds a process by its name."""

    def __init__(self, layout: Layout, find_proc: Callable[[str], Proc | None]) -> None:
        self._layout = layout
        self._find_proc = find_proc
        self._stack = contextlib.AsyncExitStack()
        self._ip: AsyncIPRoute
        self._ports: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        """Open the sockets into the WAN's namespace. Raises OSError if the lab is not there."""
        wan = self._layout.wan_namespace
        self._ip = await self._stack.enter_async_context(netns.netlink(wan))
        self._ports = {s.name: await netns.index_of(self._ip, s.wan_port) for s in self._layout.sites}
        self._filter = self._stack.enter_context(contextlib.closing(PacketFilter(wan)))
        self._filter.run(
            f"add table {_TABLE}; add chain {_TABLE} cuts {{ type filter hook forward priority 0; policy accept; }}"
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def inject(self, fault: Fault, active: str) -> float:
        """Carry out a fault at the active site; returns the wall-clock time of the act, in seconds since 1970.

        Raises LabError if what is to be killed is not there.
        """
        site = self._layout.site(active)
        match fault.name:
            case "host-loss":
                victims = procs.open_all(netns.processes_inside([site.namespace, site.service_namespace]))
                moment = await self.cut(active)
                procs.kill_all(victims)
                return moment
            case "link-cut:underlay":
                return await self.cut(active)
            case "link-cut:T1":
                return self.drop_tunnel(names.T1_KEY)
            case "link-cut:T2":
                return self.drop_tunnel(names.T2_KEY if active == names.SERVERS[0] else names.T3_KEY)
            case "switchover":
                return await self._switch_over(SWITCHOVER.expected_active(active))
            case "service-crash" | "agent-crash" | "nats-crash":
                return self._kill(f"{fault.name.removesuffix('-crash')}-{active}")
            case unknown:
                raise ValueError(f"nobody knows how to do {unknown}")

    async def heal(self) -> None:
        """Undo every cut. What was killed stays dead."""
        for name in self._ports:
            await self._link(name, "up")
        self._filter.run(f"flush chain {_TABLE} cuts")

    def drop_tunnel(self, key: int) -> float:
        """Drop GRE packets of one key in both directions; returns the time.

        RFC 2890: without a checksum (ours have none) the key is the second word of the GRE header.
        """
        return self.drop(f"ether type ip ip protocol gre @th,32,32 {key}")

    def drop(self, match: str) -> float:
        """Drop frames on the WAN that match an expression of nft(8), such as `iifname "primary"`; returns the time."""
        moment = time.time()
        self._filter.run(f"add rule {_TABLE} cuts {match} drop")
        return moment

    async def cut(self, site: str) -> float:
        """Take a site off the WAN; returns the time."""
        return await self._link(site, "down")

    async def _link(self, site: str, state: str) -> float:
        moment = time.time()
        await self._ip.link("set", index=self._ports[site], state=state)
        return moment

    async def _switch_over(self, target: str) -> float:
        deployment = load(self._layout.deployment_file)

        async def ask() -> float:
            async with Operator.connected(deployment, lambda line: None) as operator:
                moment = time.time()
                await operator.switchover(next(iter(deployment.groups)), target, _SWITCHOVER_SECONDS)
                return moment

        try:
            return await netns.run_inside(self._layout.gateway.namespace, ask)
        except TunnelswitchError as error:
            raise LabError(f"the service is not moved to {target}: {error.diagnostics()}") from None

    def _kill(self, name: str) -> float:
        victim = self._find_proc(name)
        moment = time.time()
        if victim is None or not victim.signal(9):
            raise LabError(f"{name} does not run, so it cannot be killed")
        return moment


class PacketFilter:
    """nftables inside a namespace, by libnftables(3): a rule is in force in half a millisecond. Raises OSError."""

    def __init__(self, namespace: str) -> None:
        self._library = ctypes.CDLL("libnftables.so.1")
        self._library.nft_ctx_new.restype = ctypes.c_void_p
        with netns.entered(namespace):
            self._context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p

    def run(self, command: str) -> None:
        """Carry out one line of nft(8). Raises OSError with its complaint."""
        if self._library.nft_run_cmd_from_buffer(self._context, command.encode()):
            complaint = (self._library.nft_ctx_get_error_buffer(self._context) or b"no message").decode()
            raise OSError(f"nftables: {complaint.strip().splitlines()[0]}")

    def close(self) -> None:
        """Give the netlink socket back."""
        self._library.nft_ctx_free(self._context)
