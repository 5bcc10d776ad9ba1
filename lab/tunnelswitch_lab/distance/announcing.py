"""Whom an announcement reaches: gratuitous ARP between sites that share a layer 2, and between sites that do not.

Detection, quorum and decision are the agents' own in both; only the clients' way differs (`redirection.methods`).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import messaging
from tunnelswitch_lab.bench import routed
from tunnelswitch_lab.bench.measuring import TROUBLES, measure
from tunnelswitch_lab.distance.distances import Distance
from tunnelswitch_lab.measure.runs import RunFiles
from tunnelswitch_lab.measure.summary import summarise_run
from tunnelswitch_lab.options import CHECKPOINT_INTERVALS_MS
from tunnelswitch_lab.redirection.methods import STANDING_KEYS, Garp
from tunnelswitch_lab.redirection.system import Redirected
from tunnelswitch_lab.relay import Weather
from tunnelswitch_lab.testbed import Testbed
from tunnelswitch_lab.wan import weather_on

FAULT = "host-loss"


@dataclass
class GarpBetweenSubnets(Garp):
    """The same announcement where every site is a subnet of its own, and the gateway a router with one route to the
    service: at the primary's site, as an operator would have set it. Nobody forwards a broadcast."""

    name: str = "garp between subnets"
    does: str = "the copy announces itself by gratuitous ARP and RARP in its own subnet"

    async def prepare(self, bed: Testbed) -> None:
        layout = bed.layout
        between = routed.links(layout, (STANDING_KEYS["primary"], STANDING_KEYS["secondary"]))
        await routed.build(layout, between)
        await routed.lead(layout, between[0])
        await bed.start_service(CHECKPOINT_INTERVALS_MS["process"], "process", 0)


class Far(Redirected):
    """A method of redirection over a WAN: the weather begins before the method is laid, and ends with it."""

    def __init__(self, method: Garp, interval_ms: float, weather: Weather | None, out: Path) -> None:
        super().__init__(method, interval_ms)
        self._weather = weather
        self._out = out
        self._stack = contextlib.AsyncExitStack()

    async def start(self, bed: Testbed) -> None:
        await messaging.wait_meshed(bed.layout)
        if self._weather is not None:
            await self._stack.enter_async_context(weather_on(bed, self._weather, self._out / "relay.json"))
        await super().start(bed)

    async def stop(self, bed: Testbed) -> None:
        try:
            await super().stop(bed)
        finally:
            await self._stack.aclose()


@dataclass(frozen=True)
class Announced:
    """What became of the clients of one announcement. `watched_seconds` after the fault; `downtime_seconds` is None if
    the other copy never answered in that time, and `last_answer_seconds` is when the last answer of all came.
    `problem` says why nothing could be seen."""

    distance: str
    method: str
    watched_seconds: float = 0.0
    moved_to: str | None = None
    downtime_seconds: float | None = None
    last_answer_seconds: float | None = None
    problem: str = ""

    @property
    def answered(self) -> bool:
        """Did clients get through to the new copy?"""
        return self.downtime_seconds is not None


async def announce(
    bed: Testbed, distance: Distance, weather: Weather | None, method: Garp, interval_ms: float, place: Path
) -> Announced:
    """Lose the active host under one method and watch the clients."""
    await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
    try:
        files = await measure(bed, Far(method, interval_ms, weather, place), FAULT, place)
    except TROUBLES as error:
        return Announced(distance.name, method.name, problem=str(error))
    return look(distance.name, method.name, files)


def look(distance: str, method: str, files: RunFiles) -> Announced:
    """What the recordings of one announcement say."""
    facts = files.facts
    figures: dict[str, Any] = summarise_run(files, names.RTP_PORT)
    times = [facts.since_fault_seconds(probe.received_ns) for probe in files.probes]
    came = any(
        probe.site == facts.expected_active and facts.since_fault_seconds(probe.received_ns) > 0
        for probe in files.probes
    )
    return Announced(
        distance=distance,
        method=method,
        watched_seconds=round(facts.observed_until - facts.fault_at, 3),
        moved_to=figures["active_site"] if figures["marks"]["committed"] is not None else None,
        downtime_seconds=figures["probe_downtime_seconds"] if came else None,
        last_answer_seconds=round(times[-1], 6) if times else None,
    )
