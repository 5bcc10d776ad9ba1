"""What our rows in OVSDB look like, how they are told from other people's, and the commands that write them.

Shared by the adapters that put ports into OVSDB. A row is ours if its external_ids carry `tunnelswitch=<cluster>`; no
command here changes or deletes another. Columns are those of ovs-vswitchd.conf.db(5). It sends nothing by itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ovsdbapp.backend.ovs_idl.command import BaseCommand

from aioovs import CommandError, Database, RowView
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import Tunnel

MARK = "tunnelswitch"
PROBE = f"{MARK}-probe"  # beside the mark at the ends that only measure paths

# What a Database must monitor for our adapters. Few columns on purpose: every change of one costs time on the loop.
MONITORED: Mapping[str, tuple[str, ...]] = {
    "Open_vSwitch": ("external_ids", "bridges"),
    "Bridge": ("name", "ports", "datapath_type", "fail_mode", "external_ids"),
    "Port": ("name", "interfaces", "external_ids"),
    "Interface": ("name", "type", "options", "external_ids", "ofport", "error", "bfd", "bfd_status"),
}


@dataclass(frozen=True, slots=True)
class GreEnd:
    """One GRE port as it should be. `labels` are more external_ids beside the mark."""

    interface: str
    bridge: str
    remote_address: str
    key: int
    cluster: str
    labels: Mapping[str, str] = field(default_factory=dict)
    bfd: Mapping[str, str] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, str]:
        return {"remote_ip": self.remote_address, "key": str(self.key)}

    @property
    def external_ids(self) -> dict[str, str]:
        return {MARK: self.cluster, **self.labels}


class EndState(Enum):
    """How the rows of a GRE port compare with what they should be."""

    ABSENT = "absent"
    RIGHT = "right"
    BROKEN = "broken"
    FOREIGN = "foreign"

    @property
    def ours(self) -> bool:
        return self in (EndState.RIGHT, EndState.BROKEN)


@dataclass(frozen=True, slots=True)
class StoredStamps:
    """The stamps in OVSDB by group. `garbage` are the groups under whose key something else stands."""

    stamps: dict[str, Stamp]
    garbage: frozenset[str]


def stamp_key(cluster: str, group: str) -> str:
    """The key of the Open_vSwitch row's external_ids that holds a group's stamp."""
    return f"{MARK}:{cluster}:{group}"


def stored_stamps(database: Database, cluster: str, groups: Iterable[str]) -> StoredStamps:
    """The stamps of these groups."""
    row = switch_row(database)
    external_ids = {} if row is None else row["external_ids"]
    stamps: dict[str, Stamp] = {}
    garbage: set[str] = set()
    for group in groups:
        text = external_ids.get(stamp_key(cluster, group))
        try:
            if text is not None:
                stamps[group] = Stamp.parse(text)
        except ValueError:
            garbage.add(group)
    return StoredStamps(stamps, frozenset(garbage))


def client_end(tunnel: Tunnel, cluster: str) -> GreEnd:
    """The GRE port of a client tunnel's end."""
    labels = {f"{MARK}-service": tunnel.service, f"{MARK}-group": tunnel.group}
    return GreEnd(tunnel.interface, tunnel.bridge, tunnel.remote_address, tunnel.key, cluster, labels)


def switch_row(database: Database) -> RowView | None:
    """The one row of the Open_vSwitch table."""
    return next(iter(database.rows("Open_vSwitch")), None)


def named(database: Database, table: str, name: str) -> RowView | None:
    """A row by its name."""
    found = database.api.lookup(table, name, None)
    return None if found is None else database.row(table, found.uuid)


def client_ports(database: Database, cluster: str) -> list[str]:
    """The names of all ports of ours that carry clients, whatever they are for: also of services and of gateways that
    are no part of the deployment any more."""
    found = []
    for port in database.rows("Port"):
        rows = (port, *(database.row("Interface", one) for one in port["interfaces"]))
        ours = all(row is not None and row["external_ids"].get(MARK) == cluster for row in rows)
        if ours and PROBE not in port["external_ids"]:
            found.append(str(port["name"]))
    return sorted(found)


class BridgePorts:
    """Which ports stand on which bridge: each bridge is read once, for looks at many ends in one step of the loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, frozenset[uuid.UUID]] = {}

    def of(self, bridge: str) -> frozenset[uuid.UUID]:
        """The ports of a bridge; none if it is not there."""
        if bridge not in self._known:
            row = named(self._database, "Bridge", bridge)
            self._known[bridge] = frozenset() if row is None else frozenset(row["ports"])
        return self._known[bridge]


def end_state(database: Database, end: GreEnd, ports: BridgePorts | None = None) -> EndState:
    """What the rows named as `end` are. BROKEN is ours, but another port than it should be, or one that failed.

    Who looks at many ends passes the same `ports` to each look of one step.
    """
    port = named(database, "Port", end.interface)
    interface = named(database, "Interface", end.interface)
    if port is None and interface is None:
        return EndState.ABSENT
    if any(row is not None and row["external_ids"].get(MARK) != end.cluster for row in (port, interface)):
        return EndState.FOREIGN
    if port is None or interface is None:
        return EndState.BROKEN
    right = (
        port.uuid in (ports or BridgePorts(database)).of(end.bridge)
        and port["interfaces"] == [interface.uuid]
        and interface["type"] == "gre"
        and interface["options"] == end.options
        and interface["bfd"] == end.bfd
        and interface["ofport"] != -1
    )
    return EndState.RIGHT if right else EndState.BROKEN


class ChangePorts(BaseCommand):  # type: ignore[misc]
    """Deletes ports of ours with their interfaces, one that is gone being no error, and adds GRE ports, or rewrites
    those of ours that have their names. The bridges are read once, however many ports there are."""

    def __init__(self, api: Any, cluster: str, *, drop: Iterable[str] = (), put: Iterable[GreEnd] = ()) -> None:
        super().__init__(api)
        self.cluster = cluster
        self.drop = tuple(drop)
        self.put = tuple(put)

    def run_idl(self, txn: Any) -> None:
        """Called while a transaction is built. Raises CommandError for a row that is not ours."""
        bridges = self.api.tables["Bridge"].rows.values()
        holders = {port.uuid: bridge for bridge in bridges for port in bridge.ports}
        for name in self.drop:
            self._drop(name, holders)
        for end in self.put:
            self._put(txn, end, holders)

    def _drop(self, name: str, holders: Mapping[uuid.UUID, Any]) -> None:
        port = self.api.lookup("Port", name, None)
        if port is None:
            return
        _our_interface(port, self.cluster)
        if port.uuid in holders:
            holders[port.uuid].delvalue("ports", port)
        for interface in port.interfaces:
            interface.delete()
        port.delete()

    def _put(self, txn: Any, end: GreEnd, holders: Mapping[uuid.UUID, Any]) -> None:
        bridge = self.api.lookup("Bridge", end.bridge)
        port = self.api.lookup("Port", end.interface, None)
        if port is None:
            port = txn.insert(self.api.tables["Port"])
            port.name = end.interface
            interface = txn.insert(self.api.tables["Interface"])
            interface.name = end.interface
            port.interfaces = [interface]
            txn.expected_ifaces.add(interface.uuid)
        else:
            interface = _our_interface(port, self.cluster)
        wanted = {"type": "gre", "options": end.options, "external_ids": end.external_ids, "bfd": dict(end.bfd)}
        for column, value in wanted.items():
            _write(interface, column, value)
        _write(port, "external_ids", end.external_ids)
        holder = holders.get(port.uuid)
        if holder is not None and holder.uuid == bridge.uuid:
            return
        if holder is not None:
            holder.delvalue("ports", port)
        bridge.addvalue("ports", port)


class SamePorts(BaseCommand):  # type: ignore[misc]
    """Lets the transaction land only while a bridge has just the ports that we know of. The guard on a stamp cannot
    tell that a repair under the same stamp, given up long ago, has landed in between."""

    def __init__(self, api: Any, bridge: str) -> None:
        super().__init__(api)
        self.bridge = bridge

    def run_idl(self, txn: Any) -> None:
        """Called while a transaction is built."""
        bridge = self.api.lookup("Bridge", self.bridge, None)
        if bridge is not None:
            bridge.verify("ports")


class PutBridge(BaseCommand):  # type: ignore[misc]
    """Adds a bridge of ours with `fail_mode=secure`, or makes the one of ours that has this name so."""

    def __init__(self, api: Any, name: str, cluster: str, datapath_type: str) -> None:
        super().__init__(api)
        self.name = name
        self.cluster = cluster
        self.datapath_type = datapath_type

    def run_idl(self, txn: Any) -> None:
        """Called while a transaction is built. Raises CommandError for a bridge that is not ours."""
        bridge = self.api.lookup("Bridge", self.name, None)
        if bridge is None:
            self.api.add_br(self.name, may_exist=False).run_idl(txn)
            bridge = self.api.lookup("Bridge", self.name)
            bridge.external_ids = {MARK: self.cluster}
        elif bridge.external_ids.get(MARK) != self.cluster:
            raise CommandError(f"bridge {self.name} is not ours")
        else:
            bridge.verify("external_ids")
        _write(bridge, "datapath_type", self.datapath_type)
        _write(bridge, "fail_mode", ["secure"])


def _our_interface(port: Any, cluster: str) -> Any:
    """The port's interface; `verify` makes the transaction fail if either is not ours any more when it lands."""
    for row in (port, *port.interfaces):
        if row.external_ids.get(MARK) != cluster:
            raise CommandError(f"port {port.name} is not ours")
        row.verify("external_ids")
    if not port.interfaces:
        raise CommandError(f"port {port.name} has no interface")
    return port.interfaces[0]


def _write(row: Any, column: str, value: Any) -> None:
    if getattr(row, column, None) != value:
        setattr(row, column, value)
