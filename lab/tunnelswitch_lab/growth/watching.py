"""What a failover of many services costs, seen from outside: the gateway's OVSDB, processor time, NATS' counters."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from aioovs import Database, RowChange
from tunnelswitch.core.topology import Tunnel
from tunnelswitch.pki.identities import BUS_ACCOUNT
from tunnelswitch_lab import layout as names
from tunnelswitch_lab import messaging, netns
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.procs import Proc

_TABLES = {"Open_vSwitch": ("next_cfg", "cur_cfg", "external_ids"), "Port": ("name",)}
_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


class Gateway:
    """The gateway's OVSDB. At every commit each pair of tunnels is looked at: exactly one of T2 and T3 must be there.

    `applied_at`: when ovs-vswitchd followed all T3, Unix seconds. `problems` are commits after which it was not so.
    """

    def __init__(self, site: Site, ends: tuple[Tunnel, ...]) -> None:
        self.applied_at: float | None = None
        self.commits = 0
        self.problems: list[str] = []
        self._database = Database(site.ovsdb, tables=_TABLES)
        self._labels = {end.interface: end.label for end in ends}
        self._first = {end.service for end in ends}
        self._services = {end.interface: end.service for end in ends}

    async def watch(self, until_seconds: float) -> None:
        """Until all have moved and ovs-vswitchd follows, or for so long."""
        async with self._database as database:
            changes = database.changes("Open_vSwitch")
            try:
                async with asyncio.timeout(until_seconds):
                    async for change in changes:
                        if isinstance(change, RowChange):
                            self._look(change)
                        else:
                            self.problems.append(f"what OVSDB did was not seen whole: {change}")
                        if self.applied_at is not None:
                            return
            except TimeoutError:
                self.problems.append(f"not all tunnels were switched after {until_seconds:g} s")

    def _look(self, change: RowChange) -> None:
        now, row = time.time(), change.new
        here = [name for port in self._database.rows("Port") if (name := port["name"]) in self._labels]
        if "next_cfg" in change.old:
            self.commits += 1
            each = Counter(self._services[name] for name in here)
            if wrong := sorted(service for service in self._first if each[service] != 1):
                self.problems.append(f"{len(wrong)} services without exactly one tunnel, such as {wrong[0]}")
        if row["cur_cfg"] >= row["next_cfg"] and here and all(self._labels[name] == "T3" for name in here):
            self.applied_at = now


def processor_seconds(procs: list[Proc]) -> dict[str, float]:
    """What each process of the lab has used so far, threads included; those that have ended are left out."""
    used = {}
    for proc in procs:
        try:
            fields = Path(f"/proc/{proc.pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        used[proc.name] = (int(fields[11]) + int(fields[12])) * _TICK_SECONDS
    return used


async def messages(layout: Layout) -> Counter[str]:
    """Messages and bytes to and from the clients of the nodes that outlive the primary; writes of the store."""
    counted: Counter[str] = Counter()
    for site in layout.sites[1:]:
        endpoint = f"{site.underlay_address}:{names.NATS_MONITOR_PORT}"
        _, body = await netns.http_get(site.namespace, endpoint, "/varz")
        told = json.loads(body)
        for name in ("in_msgs", "out_msgs", "in_bytes", "out_bytes"):
            counted[name] += told[name]
    endpoint = f"{layout.gateway.underlay_address}:{names.NATS_MONITOR_PORT}"
    _, body = await netns.http_get(layout.gateway.namespace, endpoint, "/jsz?accounts=1&streams=1")
    for account in json.loads(body).get("account_details", []):
        for stream in account.get("stream_detail") or []:
            counted["store_writes"] += stream["state"]["last_seq"]
    return counted


class Reports:
    """The switcher's reports, one for each group that moved, heard on a thread inside the gateway's namespace."""

    def __init__(self, layout: Layout, wanted: int) -> None:
        self._layout = layout
        self._wanted = wanted
        self._listening = threading.Event()
        self.told: list[dict[str, Any]] = []

    async def listening(self) -> None:
        """Return once nothing can be missed."""
        await asyncio.to_thread(self._listening.wait, 10.0)

    async def listen(self, seconds: float) -> None:
        """Until all are in, or for so long."""
        await netns.run_inside(self._layout.gateway.namespace, lambda: self._listen(seconds))

    async def _listen(self, seconds: float) -> None:
        client = await messaging.connect(self._layout, self._layout.gateway, BUS_ACCOUNT)
        try:
            heard = await client.subscribe(f"tsw.v1.{self._layout.name}.failover.*")
            await client.flush()
            self._listening.set()
            async with asyncio.timeout(seconds):
                while len(self.told) < self._wanted:
                    message = await heard.next_msg(timeout=seconds)
                    self.told.append(json.loads(message.data)["data"])
        except TimeoutError:
            return
        finally:
            await client.close()

    def last(self, mark: str) -> float | None:
        """When the last group came to a mark, Unix seconds."""
        return max((report["marks"][mark] for report in self.told if mark in report["marks"]), default=None)
