"""The probe mesh: one GRE port with BFD (RFC 5880) to every other site, on a bridge that forwards nothing.

OVS does the probing; this keeps the rows right and tells what `bfd_status` says, as soon as it changes. A lost OVSDB
is our own blindness, so every path is then UNKNOWN, never DOWN. It concludes nothing about sites, and it cannot see
that its own ovs-vswitchd has died: the last status then stays in OVSDB.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace

import structlog

from aioovs import AioOvsError, Database, DatabaseClosed, Disconnected, RowChange
from tunnelswitch.core.events import PathChanged
from tunnelswitch.core.facts import Path
from tunnelswitch.dataplane import MARK, PROBE, ChangePorts, EndState, GreEnd, PutBridge, end_state, named
from tunnelswitch.errors import DataPlaneError
from tunnelswitch.ports import Emit

REPAIR_SECONDS = 1.0
DEADLINE_SECONDS = 5.0
_NAME_LENGTH_MAX = 15

_log = structlog.get_logger("tunnelswitch.ovs_paths")


def probe_key(cluster: str, site: str, peer: str, taken: Iterable[int] = ()) -> int:
    """The GRE key of the probe tunnel between two sites: the same at both, and none of `taken`."""
    pair = "/".join((cluster, *sorted((site, peer))))
    digest = hashlib.sha256(pair.encode()).digest()
    key, used = 0x8000_0000 | int.from_bytes(digest[:4], "big"), frozenset(taken)
    while key in used:
        key = 0x8000_0000 | (key + 1) & 0xFFFF_FFFF
    return key


def probe_interface(peer: str) -> str:
    """The port's name. Site names too long for one are cut, and told apart by a hash."""
    name = f"bfd-{peer}"
    if len(name) <= _NAME_LENGTH_MAX:
        return name
    return f"bfd-{peer[:5]}-{hashlib.sha256(peer.encode()).hexdigest()[:5]}"


class OvsPaths:
    """See ports.Paths.

    Args:
        database: open, and monitoring at least `dataplane.MONITORED`; its owner closes it.
        peers: underlay address of every other site, by name.
        probe_bridge: made if it is not there; one that is there and not ours is refused.
        like_bridges: the first of these that exists gives the probe bridge its datapath type. None are named: the
            bridge with the underlay's device gives it, or any other, and without one it is `system`.
        interval_seconds, multiplier: BFD's; a path is down after their product.
        widened: what the multiplier to a peer shall be now; asked once a second. By default it stays.
        service_keys: every GRE key in the whole deployment that a probe must not use.
        underlay_device: name of the device that has this site's underlay address; empty if none here has.
    """

    def __init__(
        self,
        database: Database,
        *,
        cluster: str,
        site: str,
        peers: Mapping[str, str],
        probe_bridge: str,
        like_bridges: Iterable[str],
        interval_seconds: float,
        multiplier: int,
        emit: Emit,
        service_keys: Iterable[int] = (),
        widened: Callable[[str], int] | None = None,
        underlay_device: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        interval = str(max(1, round(interval_seconds * 1000)))
        bfd = {"enable": "true", "min_tx": interval, "min_rx": interval, "mult": str(multiplier)}
        taken = frozenset(service_keys)
        self._ends = {
            peer: GreEnd(
                interface=probe_interface(peer),
                bridge=probe_bridge,
                remote_address=address,
                key=probe_key(cluster, site, peer, taken),
                cluster=cluster,
                labels={PROBE: peer},
                bfd=bfd,
            )
            for peer, address in peers.items()
        }
        self._database = database
        self._cluster = cluster
        self._site = site
        self._bridge = probe_bridge
        self._like = tuple(like_bridges)
        self._underlay_device = underlay_device
        self._emit = emit
        self._widened = widened
        self._before: dict[str, GreEnd] = {}
        self._told: dict[str, Path] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._repair = asyncio.Event()
        self._problem = ""
        self._blind = ""

    @property
    def problem(self) -> str:
        """Why the mesh is not as it should be, or is not watched; empty while all is well."""
        return self._blind or self._problem

    async def start(self) -> None:
        """Make the mesh, tell the state of every path, and from now on every change of it."""
        self._repair.set()
        for work, name in ((self._watch(), "watch"), (self._keep(), "keep")):
            self._tasks.append(asyncio.create_task(work, name=f"paths of {self._site}: {name}"))

    async def close(self) -> None:
        """Stop telling. The mesh stays: the other sites go on seeing us through it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    # -- telling ---------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        try:
            changes = self._database.changes("Bridge", "Port", "Interface")
            self._tell()
            async for change in changes:
                if isinstance(change, RowChange) and not self._concerns(change):
                    continue
                self._tell()
                if not isinstance(change, Disconnected) and not self._right():
                    self._repair.set()
        except DatabaseClosed:
            self._tell()
        except Exception as error:  # noqa: BLE001 - never silently: old news must not pass for the present
            _log.error("paths can no longer be watched; restart the agent", site=self._site, error=repr(error))
            self._blind = f"paths can no longer be watched ({error!r}); restart the agent"
            self._tell()

    def _concerns(self, change: RowChange) -> bool:
        names = {end.interface for end in self._ends.values()} | {self._bridge}
        return any(columns.get("name") in names for columns in (change.old, change.new))

    def _tell(self) -> None:
        for peer, end in self._ends.items():
            path = Path.UNKNOWN if self._blind else self._path(end)
            if self._told.get(peer) is not path:
                self._told[peer] = path
                self._emit(PathChanged(peer, path))

    def _path(self, end: GreEnd) -> Path:
        before = self._before.get(end.labels[PROBE], end)  # OVSDB may still have it as it was
        right = any(end_state(self._database, one) is EndState.RIGHT for one in (end, before))
        if not self._database.connected or not right:
            return Path.UNKNOWN
        interface = named(self._database, "Interface", end.interface)
        state = None if interface is None else interface["bfd_status"].get("state")
        if state is None:
            return Path.UNKNOWN
        return Path.UP if state == "up" else Path.DOWN

    # -- keeping ---------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Repairs, at most one a second: somebody may be undoing them. And follows the multipliers that are wanted."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPAIR_SECONDS):
                    await self._repair.wait()
            if not self._adapt() and not self._repair.is_set():
                continue
            self._repair.clear()
            try:
                if self._database.connected:
                    await self._put()
                    self._before.clear()
                self._problem = ""
            except DatabaseClosed:
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, it is said and tried again
                text = _text(error)
                if text != self._problem:
                    _log.error("the probe mesh is not as it should be", site=self._site, error=text)
                self._problem = text
                self._repair.set()
            await asyncio.sleep(REPAIR_SECONDS)

    def _adapt(self) -> bool:
        """Take the wanted multipliers over. Returns whether one changed."""
        if self._widened is None:
            return False
        changed = False
        for peer, end in self._ends.items():
            wanted = str(self._widened(peer))
            if end.bfd["mult"] != wanted:
                self._before.setdefault(peer, end)
                self._ends[peer] = replace(end, bfd={**end.bfd, "mult": wanted})
                changed = True
        return changed

    def _right(self) -> bool:
        bridge = named(self._database, "Bridge", self._bridge)
        return (
            bridge is not None
            and bridge["fail_mode"] == "secure"
            and all(end_state(self._database, end) is EndState.RIGHT for end in self._ends.values())
        )

    async def _put(self) -> None:
        """One transaction that makes everything as it should be; nothing is sent if it is."""
        database = self._database
        bridge = named(database, "Bridge", self._bridge)
        if bridge is not None and bridge["external_ids"].get(MARK) != self._cluster:
            raise DataPlaneError(
                f"bridge {self._bridge} at site {self._site} is not ours (no external_ids:{MARK}={self._cluster})",
                f"delete it, or name another as sites.{self._site}.probe_bridge",
            )
        for end in self._ends.values():
            if end_state(database, end) is EndState.FOREIGN:
                raise DataPlaneError(f"port {end.interface} at site {self._site} is not ours", "rename or delete it")
        ports = ChangePorts(database.api, self._cluster, drop=self._left_over(), put=self._ends.values())
        put_bridge = PutBridge(database.api, self._bridge, self._cluster, await self._datapath_type())
        await database.transact(put_bridge, ports, deadline_seconds=DEADLINE_SECONDS)
        for end in self._ends.values():
            interface = named(database, "Interface", end.interface)
            if interface is not None and interface["ofport"] == -1:
                reason = interface["error"] or "it does not say why"
                raise DataPlaneError(
                    f"ovs-vswitchd could not create {end.interface}: {reason}",
                    f"look for another tunnel to {end.remote_address} with key {end.key}",
                )

    def _left_over(self) -> list[str]:
        """Probe ports of ours to sites that are none any more."""
        wanted = {end.interface for end in self._ends.values()}
        return [
            row["name"]
            for row in self._database.rows("Interface")
            if row["external_ids"].get(MARK) == self._cluster
            and PROBE in row["external_ids"]
            and row["name"] not in wanted
        ]

    async def _datapath_type(self) -> str:
        if not self._like:
            return await self._underlay_datapath_type()
        for name in self._like:
            row = named(self._database, "Bridge", name)
            if row is not None:
                return str(row["datapath_type"])
        raise DataPlaneError(
            f"none of the bridges {', '.join(self._like)} exists at site {self._site}",
            "create it: the probe bridge takes its datapath type",
        )

    async def _underlay_datapath_type(self) -> str:
        """A userspace tunnel leaves only through a userspace bridge that has the underlay address."""
        device = await self._underlay_device() if self._underlay_device is not None else ""
        port = named(self._database, "Port", device) if device else None
        others = sorted(
            (row for row in self._database.rows("Bridge") if row["name"] != self._bridge),
            key=lambda row: (port is None or port.uuid not in row["ports"], row["name"]),
        )
        return str(others[0]["datapath_type"]) if others else "system"


def _text(error: Exception) -> str:
    if isinstance(error, DataPlaneError):
        return error.diagnostics()
    return str(error) if isinstance(error, AioOvsError | OSError) else repr(error)
