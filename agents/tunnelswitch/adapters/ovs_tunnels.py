"""Client tunnel ends in one site's OVSDB, and the stamps that they follow (PROTOCOL, "The switch").

A stamp and the ports that it asks for are written in one transaction, whose first operation is the guard: the stamp
must be the one that the decision was made on. It knows no rule about stamps or tunnels. Only rows of ours on bridges
that we may use are ever written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from aioovs import (
    AioOvsError,
    Conflict,
    Database,
    DatabaseClosed,
    Disconnected,
    Guard,
    GuardFailed,
    Outcome,
    RowChange,
    SetKeys,
)
from tunnelswitch.core.actions import ApplyTunnels
from tunnelswitch.core.events import DataPlaneLost, DataPlaneSeen, SwitchApplied, SwitchConflict, SwitchFailed
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import Tunnel
from tunnelswitch.dataplane import (
    MARK,
    DropPort,
    EndState,
    GreEnd,
    PutGre,
    SamePorts,
    StoredStamps,
    client_end,
    end_state,
    named,
    stamp_key,
    stored_stamps,
    switch_row,
)
from tunnelswitch.errors import DataPlaneError
from tunnelswitch.ports import Emit

CONFLICTS_MAX = 5
_MIN_SECONDS = 0.001

_log = structlog.get_logger("tunnelswitch.ovs_tunnels")


class OvsTunnels:
    """See ports.DataPlane.

    Args:
        database: open, and monitoring at least `dataplane.MONITORED`; its owner closes it.
        ends: every end that this site may ever hold.
        groups: whose stamps are read.
        allowed_bridges: the only bridges on which ends may be made.
        clock: must be the monotonic clock that `aioovs` reads.
    """

    def __init__(
        self,
        database: Database,
        *,
        cluster: str,
        site: str,
        ends: Iterable[Tunnel],
        groups: Iterable[str],
        allowed_bridges: Iterable[str],
        emit: Emit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._cluster = cluster
        self._site = site
        self._ends = {end.interface: client_end(end, cluster) for end in ends}
        self._group_of = {end.interface: end.group for end in ends}
        self._groups = tuple(groups)
        self._allowed = frozenset(allowed_bridges)
        self._emit = emit
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._told: DataPlaneSeen | None = None
        self._telling = False

    async def start(self) -> None:
        """Tell what OVSDB holds, and from now on every change of it."""
        self._task = asyncio.create_task(self._watch(), name=f"tunnels of {self._site}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def apply(self, action: ApplyTunnels) -> SwitchApplied | SwitchConflict | SwitchFailed:
        """Carry out one action within its deadline. What was sent when the deadline passed may still land."""
        deadline = self._clock() + action.deadline_seconds
        for attempt in range(1, CONFLICTS_MAX + 1):
            try:
                return await self._attempt(action, max(_MIN_SECONDS, deadline - self._clock()))
            except DataPlaneError as error:
                return SwitchFailed(action.group, error.diagnostics())
            except GuardFailed as error:
                return self._conflict(action.group, error)
            except Conflict as error:  # another writer's rows or a late one of ours, not the guard: look again
                if attempt == CONFLICTS_MAX or self._clock() >= deadline:
                    return SwitchFailed(action.group, f"{error}; look for who else writes to this OVSDB")
            except AioOvsError as error:
                return SwitchFailed(action.group, str(error))
        raise AssertionError("unreachable")

    # -- one transaction -------------------------------------------------------------------------------------

    async def _attempt(self, action: ApplyTunnels, deadline_seconds: float) -> SwitchApplied:
        database = self._database
        if not database.connected:
            raise DataPlaneError(
                f"OVSDB of {self._site} is not connected: {database.problem}", "start ovsdb-server; we reconnect"
            )
        row = switch_row(database)
        if row is None:
            raise DataPlaneError(f"OVSDB of {self._site} is empty", "run `ovs-vsctl --no-wait init`")
        if action.group in self._stored().garbage:
            raise self._garbage(action.group)
        if action.expected is not None and action.stamp < action.expected:
            raise DataPlaneError(f"{action.stamp} is older than {action.expected}, which is stored", "decide again")
        add, remove = self._changes(action)
        key = stamp_key(self._cluster, action.group)
        stored, stamp = row["external_ids"].get(key), str(action.stamp)
        expected = None if action.expected is None else str(action.expected)
        if not add and not remove and stored == expected == stamp:
            submitted_at = self._clock()
            await database.wait_applied(row["next_cfg"], deadline_seconds)
            self._check_created(action)
            now = self._clock()
            return self._applied(action, Outcome(False, None, True, submitted_at, submitted_at, now))
        outcome = await database.transact(
            SetKeys(database.api, "Open_vSwitch", row.uuid, "external_ids", {key: stamp}),
            *(SamePorts(database.api, bridge) for bridge in sorted({end.bridge for end in self._ends.values()})),
            *(DropPort(database.api, name, self._cluster) for name in remove),
            *(PutGre(database.api, end) for end in add),
            guard=Guard("Open_vSwitch", row.uuid, key, expected),
            deadline_seconds=deadline_seconds,
            wait_applied=True,
            durable=True,
            comment=f"tunnelswitch {action.group} {stamp}",
        )
        self._check_created(action)
        return self._applied(action, outcome)

    def _changes(self, action: ApplyTunnels) -> tuple[list[GreEnd], list[str]]:
        """What is to be written, and deleted, so that the action's ends are as they should be."""
        add: list[GreEnd] = []
        for tunnel in action.add:
            end = client_end(tunnel, self._cluster)
            if end.bridge not in self._allowed:
                listed = ", ".join(sorted(self._allowed)) or "none"
                raise DataPlaneError(
                    f"bridge {end.bridge} is not ours to use at site {self._site} (its bridges: {listed})",
                    f"add it to sites.{self._site}.bridges, or name one of those",
                )
            if named(self._database, "Bridge", end.bridge) is None:
                raise DataPlaneError(
                    f"bridge {end.bridge} is not there at site {self._site}",
                    f"create it (`ovs-vsctl add-br {end.bridge} -- set-fail-mode {end.bridge} secure`)",
                )
            state = end_state(self._database, end)
            if state is EndState.FOREIGN:
                raise DataPlaneError(
                    f"port {end.interface} at site {self._site} is not ours (no external_ids:{MARK}={self._cluster})",
                    "rename or delete it, or rename the service",
                )
            if state is not EndState.RIGHT:
                add.append(end)
        remove = [tunnel.interface for tunnel in action.remove if self._state(client_end(tunnel, self._cluster)).ours]
        return add, remove

    def _check_created(self, action: ApplyTunnels) -> None:
        for tunnel in action.add:
            interface = named(self._database, "Interface", tunnel.interface)
            if interface is not None and interface["ofport"] == -1:
                raise DataPlaneError(
                    f"ovs-vswitchd could not create {tunnel.interface}: {interface['error'] or 'it does not say why'}",
                    f"look for another tunnel to {tunnel.remote_address} with key {tunnel.key}",
                )

    def _applied(self, action: ApplyTunnels, outcome: Outcome) -> SwitchApplied:
        applied_at = outcome.committed_at if outcome.applied_at is None else outcome.applied_at
        present = self._present(action.group)
        return SwitchApplied(
            action.group, action.stamp, present, outcome.submitted_at, outcome.committed_at, applied_at
        )

    def _conflict(self, group: str, error: GuardFailed) -> SwitchConflict | SwitchFailed:
        if not error.row_exists:
            return SwitchFailed(group, str(error))
        try:
            stored = None if error.held is None else Stamp.parse(error.held)
            return SwitchConflict(group, stored, self._present(group))
        except ValueError:
            return SwitchFailed(group, self._garbage(group).diagnostics())

    def _garbage(self, group: str) -> DataPlaneError:
        key = stamp_key(self._cluster, group)
        return DataPlaneError(
            f"OVSDB of {self._site} holds no stamp under external_ids:{key}, but something else; it is left alone",
            f"find out who wrote it, then `ovs-vsctl remove Open_vSwitch . external_ids '\"{key}\"'`",
        )

    # -- what is there ---------------------------------------------------------------------------------------

    def _state(self, end: GreEnd) -> EndState:
        return end_state(self._database, end)

    def _present(self, group: str) -> frozenset[str]:
        names = [name for name, of in self._group_of.items() if of == group]
        return frozenset(name for name in names if self._state(self._ends[name]).ours)

    def _stored(self) -> StoredStamps:
        return stored_stamps(self._database, self._cluster, self._groups)

    def _seen(self) -> DataPlaneSeen:
        stored = self._stored()
        states = {name: self._state(end) for name, end in self._ends.items()}
        unclear = {name for name, group in self._group_of.items() if group in stored.garbage}
        return DataPlaneSeen(
            stored=stored.stamps,
            present=frozenset(name for name, state in states.items() if state.ours),
            broken=frozenset(name for name, state in states.items() if state is EndState.BROKEN),
            foreign=frozenset(unclear.union(name for name, state in states.items() if state is EndState.FOREIGN)),
        )

    # -- changes ---------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        try:
            with_changes = self._database.changes("Open_vSwitch", "Bridge", "Port", "Interface")
            if self._database.connected:
                self._tell()
            else:
                self._lost(self._database.problem or "not connected")
            async for change in with_changes:
                if isinstance(change, Disconnected):
                    self._lost(change.reason)
                elif not isinstance(change, RowChange) or self._concerns(change):
                    self._tell_soon()
        except DatabaseClosed as error:
            self._lost(str(error))
        except Exception as error:  # noqa: BLE001 - never silently: whoever depends on us must not believe old news
            _log.error("the data plane can no longer be watched", site=self._site, error=repr(error))
            self._lost(f"internal error: {error!r}; restart the agent")

    def _concerns(self, change: RowChange) -> bool:
        if change.table == "Open_vSwitch":
            return change.kind != "update" or "external_ids" in change.old
        if change.table == "Bridge":
            return change.kind != "update" or "ports" in change.old
        return any(columns.get("name") in self._ends for columns in (change.old, change.new))

    def _tell_soon(self) -> None:
        """One transaction is several changes: what waits in the queue is taken before we look."""
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        if self._task is None or not self._database.connected:
            return
        seen = self._seen()
        if seen == self._told:
            return
        before = self._told.foreign if self._told else frozenset()
        if seen.foreign - before:
            _log.error("not ours, left alone", site=self._site, interfaces=sorted(seen.foreign))
        self._told = seen
        self._emit(seen)

    def _lost(self, reason: str) -> None:
        self._told = None
        self._emit(DataPlaneLost(f"OVSDB of {self._site}: {reason}"))
