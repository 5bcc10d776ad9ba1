"""Weather between the lab's sites: by the kernel, or by the relay, put between every site and the WAN's bridge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netem, netns, procs
from tunnelswitch_lab.agents import check_alive
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.netns import End
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.procs import Proc
from tunnelswitch_lab.relay import CALM, Weather
from tunnelswitch_lab.testbed import Testbed

_REALTIME_PRIORITY = 2  # above the probe: a relay that waits would be weather of its own
_READY_SECONDS = 10.0
_END_SECONDS = 5.0


def relay_port(site: Site) -> str:
    """The device at which the relay hands the site's frames on."""
    return f"{site.wan_port}-r"


def bridge_port(site: Site) -> str:
    """Its other end, in the bridge."""
    return f"{site.wan_port}-b"


class Wan:
    """A relay between the sites of one lab, as long as the context lasts. `out`: where it writes its JSON; `weather`:
    the one that it begins with.

    Every link is cut for a moment when it is put in and taken out: do that before agents run and when they have ended.
    The lab must not be reset meanwhile: that would end the relay, and with it every link.
    """

    def __init__(self, bed: Testbed, out: Path, weather: Weather = CALM) -> None:
        self._bed = bed
        self._out = out
        self._first = weather
        self._weather = out.with_name("weather.json")
        self._proc: Proc | None = None

    async def __aenter__(self) -> Wan:
        """Begin. Raises LabError if the relay does not run; the links are as they were then."""
        layout = self._bed.layout
        self._first.save(self._weather)
        command = [sys.executable, "-m", "tunnelswitch_lab.relay", "--out", str(self._out)]
        command += ["--weather", str(self._weather), "--realtime", str(_REALTIME_PRIORITY)]
        for site in layout.sites:
            command += ["--link", f"{site.wan_port}:{relay_port(site)}"]
        try:
            await insert(layout)
            log = self._out.with_suffix(".log")
            log.unlink(missing_ok=True)
            self._proc = self._bed.spawn("wan", command, name="wan-relay", log=log)
            await self._wait_ready(self._proc)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    def change(self, weather: Weather) -> None:
        """From now on there is this weather on every link. Raises LabError if the relay has ended."""
        weather.save(self._weather)
        if self._proc is None or not self._proc.signal(signal.SIGHUP):
            raise LabError(f"the relay has ended (log: {self._out.with_suffix('.log')})")

    def told(self) -> dict[str, Any]:
        """What became of the frames, once the relay has ended; empty if it did not end in order."""
        try:
            told: dict[str, Any] = json.loads(self._out.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return told

    async def _wait_ready(self, proc: Proc) -> None:
        log = Path(proc.log)

        async def check() -> bool:
            check_alive(proc)
            return "ready" in await asyncio.to_thread(log.read_text)

        try:
            await netns.wait_for(check, "the relay is not ready", _READY_SECONDS)
        except TimeoutError as error:
            raise LabError(f"{error} (log: {proc.log})") from None

    async def _stop(self) -> None:
        if self._proc is not None:
            self._proc.signal(15)
            if await procs.wait_gone([self._proc.pid], _END_SECONDS):
                self._proc.signal(9)
        with contextlib.suppress(OSError, LookupError):  # the lab may be gone
            await asyncio.shield(remove(self._bed.layout))


async def insert(layout: Layout) -> None:
    """Take every site out of the bridge and put a pair in, for the relay to carry frames between them."""
    wan = layout.wan_namespace
    for site in layout.sites:
        await netns.add_veth(End(wan, relay_port(site)), End(wan, bridge_port(site)))
        async with netns.netlink(wan) as ip:
            bridge = await netns.index_of(ip, names.WAN_BRIDGE)
            await ip.link("set", index=await netns.index_of(ip, site.wan_port), master=0)
            await ip.link("set", index=await netns.index_of(ip, bridge_port(site)), master=bridge)


async def remove(layout: Layout) -> None:
    """Plug every site back into the bridge. What is plugged in already stays."""
    async with netns.netlink(layout.wan_namespace) as ip:
        bridge = await netns.index_of(ip, names.WAN_BRIDGE)
        for site in layout.sites:
            with contextlib.suppress(LookupError):
                await ip.link("del", index=await netns.index_of(ip, relay_port(site)))
            await ip.link("set", index=await netns.index_of(ip, site.wan_port), master=bridge)


class Shaping:
    """How a weather is made, `netem` or `relay`, and what became of the frames where that is known afterwards."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.told: dict[str, Any] = {}


@contextlib.asynccontextmanager
async def weather_on(bed: Testbed, weather: Weather, out: Path) -> AsyncIterator[Shaping]:
    """One weather on every link as long as the context lasts: by the kernel where it can, else by the relay.

    As for `Wan`: before agents run, and no reset meanwhile. Raises LabError.
    """
    if await netem.put(bed.layout, weather):
        try:
            yield Shaping("netem")
        finally:
            await asyncio.shield(netem.remove(bed.layout))
        return
    wan, shaping = Wan(bed, out, weather), Shaping("relay")
    try:
        async with wan:
            yield shaping
    finally:
        shaping.told = wan.told()
