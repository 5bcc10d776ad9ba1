"""What one site's OVSDB holds of its client tunnel ends, and of the stamps that they follow. It writes nothing."""

from __future__ import annotations

from collections.abc import Iterable

from aioovs import Database, RowChange
from tunnelswitch.core.events import DataPlaneSeen
from tunnelswitch.core.topology import Tunnel
from tunnelswitch.dataplane import BridgePorts, EndState, GreEnd, client_end, end_state, stored_stamps


class ClientEnds:
    """See `adapters.ovs_tunnels` for the arguments.

    Attributes:
        bridges: on which they may be.
    """

    def __init__(self, database: Database, *, cluster: str, ends: Iterable[Tunnel], groups: Iterable[str]) -> None:
        self._database, self._cluster = database, cluster
        self._groups = tuple(groups)
        self._group_of: dict[str, str] = {}
        self._ends: dict[str, GreEnd] = {}
        self._of_group: dict[str, list[str]] = {}
        for end in ends:
            self._group_of[end.interface] = end.group
            self._ends[end.interface] = client_end(end, cluster)
            self._of_group.setdefault(end.group, []).append(end.interface)
        self.bridges = tuple(sorted({end.bridge for end in self._ends.values()}))

    def present(self, group: str, ports: BridgePorts) -> frozenset[str]:
        """Interfaces of ours that are there."""
        names = self._of_group.get(group, ())
        return frozenset(name for name in names if end_state(self._database, self._ends[name], ports).ours)

    def seen(self) -> DataPlaneSeen:
        """All of it. Ends of a group whose stamp is garbage are not ours to touch."""
        stored = stored_stamps(self._database, self._cluster, self._groups)
        ports = BridgePorts(self._database)
        states = {name: end_state(self._database, end, ports) for name, end in self._ends.items()}
        unclear = {name for name, group in self._group_of.items() if group in stored.garbage}
        return DataPlaneSeen(
            stored=stored.stamps,
            present=frozenset(name for name, state in states.items() if state.ours),
            broken=frozenset(name for name, state in states.items() if state is EndState.BROKEN),
            foreign=frozenset(unclear.union(name for name, state in states.items() if state is EndState.FOREIGN)),
        )

    def concerned_by(self, change: RowChange) -> bool:
        """May something else be seen after this change?"""
        if change.table == "Open_vSwitch":
            return change.kind != "update" or "external_ids" in change.old
        if change.table == "Bridge":
            return change.kind != "update" or "ports" in change.old
        return any(columns.get("name") in self._ends for columns in (change.old, change.new))
