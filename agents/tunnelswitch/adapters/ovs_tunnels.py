"""Client tunnel ends in one site's OVSDB, and the stamps that they follow (PROTOCOL, "The switch").

A stamp and the ports that it asks for are written in one transaction, whose first operation is the guard: the stamp
must be the one that the decision was made on. It knows no rule about stamps or tunnels. Only rows of ours on bridges
that we may use are ever written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
    TransactionError,
)
from tunnelswitch.batching import Answer, Asked, Batches, fail
from tunnelswitch.client_ends import ClientEnds
from tunnelswitch.core.actions import ApplyTunnels
from tunnelswitch.core.events import DataPlaneLost, DataPlaneSeen, SwitchApplied, SwitchConflict
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import Tunnel
from tunnelswitch.dataplane import (
    MARK,
    BridgePorts,
    ChangePorts,
    EndState,
    GreEnd,
    SamePorts,
    client_end,
    end_state,
    named,
    stamp_key,
    switch_row,
)
from tunnelswitch.errors import DataPlaneError
from tunnelswitch.ports import Emit

CONFLICTS_MAX = 5
COMMENTED_MAX = 8
_MIN_SECONDS = 0.001

_log = structlog.get_logger("tunnelswitch.ovs_tunnels")


@dataclass(frozen=True, slots=True)
class _Change:
    """What an action comes to, on the rows as they are."""

    asked: Asked
    key: str
    stamp: str
    stored: str | None
    expected: str | None
    add: list[GreEnd]
    remove: list[str]


def _stamp(text: str) -> Stamp | None:
    """The stamp, or None for something that is none."""
    try:
        return Stamp.parse(text)
    except ValueError:
        return None


def _comment(changes: list[_Change]) -> str:
    """For the server's log."""
    told = ", ".join(f"{change.asked.action.group} {change.stamp}" for change in changes[:COMMENTED_MAX])
    more = len(changes) - COMMENTED_MAX
    return f"tunnelswitch {told}{f' and {more} more' if more > 0 else ''}"


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
        self._here = ClientEnds(database, cluster=cluster, ends=ends, groups=groups)
        self._allowed = frozenset(allowed_bridges)
        self._emit = emit
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._told: DataPlaneSeen | None = None
        self._telling = False
        self._batches = Batches(self._together)

    async def start(self) -> None:
        """Tell what OVSDB holds, and from now on every change of it."""
        self._task = asyncio.create_task(self._watch(), name=f"tunnels of {self._site}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._batches.close()

    async def apply(self, action: ApplyTunnels) -> Answer:
        """Carry out one action within its deadline. What was sent when the deadline passed may still land.

        Actions of several groups that are asked for at once, or while ovs-vswitchd is at work, share a transaction:
        each keeps its guard, and one that does not hold is left out of the next attempt.
        """
        return await self._batches.ask(action, self._clock() + action.deadline_seconds)

    # -- one transaction -------------------------------------------------------------------------------------

    async def _together(self, batch: list[Asked]) -> None:
        """Bring the batch to an end: every action is answered."""
        for _ in range(CONFLICTS_MAX):
            problem = "no answer before the deadline"
            try:
                await self._attempt(batch)
            except DataPlaneError as error:
                return fail(batch, error.diagnostics())
            except GuardFailed as error:
                self._answer_conflicts(batch, error)
            except Conflict as error:  # another writer's rows or a late one of ours, not the guard: look again
                problem = f"{error}; look for who else writes to this OVSDB"
            except TransactionError as error:
                if len(batch) == 1:
                    return fail(batch, str(error))
                for asked in batch:  # whoever it is that the server refuses must not hold up the others
                    await self._together([asked])
            except AioOvsError as error:
                return fail(batch, str(error))
            fail([asked for asked in batch if asked.deadline <= self._clock()], problem)
            batch = [asked for asked in batch if not asked.answer.done()]
            if not batch:
                return None
        return fail(batch, problem)

    async def _attempt(self, batch: list[Asked]) -> None:
        """One transaction for those of the batch that can be carried out; the others are answered."""
        database = self._database
        if not database.connected:
            raise DataPlaneError(
                f"OVSDB of {self._site} is not connected: {database.problem}", "start ovsdb-server; we reconnect"
            )
        row = switch_row(database)
        if row is None:
            raise DataPlaneError(f"OVSDB of {self._site} is empty", "run `ovs-vsctl --no-wait init`")
        late = [asked for asked in batch if asked.deadline <= self._clock()]
        fail(late, "the deadline passed before it was its turn: OVSDB or ovs-vswitchd is slow")
        ports, external_ids = BridgePorts(database), row["external_ids"]
        waiting = (asked for asked in batch if not asked.answer.done())
        changes = [change for asked in waiting if (change := self._change(asked, external_ids, ports)) is not None]
        if not changes:
            return
        deadline_seconds = max(_MIN_SECONDS, max(one.asked.deadline for one in changes) - self._clock())
        add = [end for change in changes for end in change.add]
        remove = [name for change in changes for name in change.remove]
        if not add and not remove and all(change.stored == change.expected == change.stamp for change in changes):
            submitted_at = self._clock()
            await database.wait_applied(row["next_cfg"], deadline_seconds)
            outcome = Outcome(False, None, True, submitted_at, submitted_at, self._clock())
        else:
            outcome = await database.transact(
                SetKeys(
                    database.api, "Open_vSwitch", row.uuid, "external_ids", {one.key: one.stamp for one in changes}
                ),
                *(SamePorts(database.api, bridge) for bridge in self._here.bridges),
                ChangePorts(database.api, self._cluster, drop=remove, put=add),
                guard=[Guard("Open_vSwitch", row.uuid, change.key, change.expected) for change in changes],
                deadline_seconds=deadline_seconds,
                wait_applied=True,
                durable=True,
                comment=_comment(changes),
            )
        self._answer_applied(changes, outcome)

    def _change(self, asked: Asked, external_ids: dict[str, str], ports: BridgePorts) -> _Change | None:
        """What an action comes to; None if it cannot be, and then it is answered."""
        action = asked.action
        key = stamp_key(self._cluster, action.group)
        stored, expected = external_ids.get(key), None if action.expected is None else str(action.expected)
        try:
            if stored is not None and _stamp(stored) is None:
                raise self._garbage(action.group)
            if action.expected is not None and action.stamp < action.expected:
                raise DataPlaneError(f"{action.stamp} is older than {action.expected}, which is stored", "decide again")
            add, remove = self._changes(action, ports)
        except DataPlaneError as error:
            fail([asked], error.diagnostics())
            return None
        return _Change(asked, key, str(action.stamp), stored, expected, add, remove)

    def _answer_applied(self, changes: list[_Change], outcome: Outcome) -> None:
        applied_at = outcome.committed_at if outcome.applied_at is None else outcome.applied_at
        ports = BridgePorts(self._database)
        for change in changes:
            action = change.asked.action
            try:
                self._check_created(action)
            except DataPlaneError as error:
                fail([change.asked], error.diagnostics())
                continue
            present = self._here.present(action.group, ports)
            times = (outcome.submitted_at, outcome.committed_at, applied_at)
            change.asked.tell(SwitchApplied(action.group, action.stamp, present, *times))

    def _answer_conflicts(self, batch: list[Asked], error: GuardFailed) -> None:
        """Those whose guard does not hold learn what is stored. Nothing was written, for the others neither."""
        if not error.row_exists:
            return fail(batch, str(error))
        row = switch_row(self._database)
        external_ids, ports = {} if row is None else row["external_ids"], BridgePorts(self._database)
        for asked in batch:
            group, expected = asked.action.group, asked.action.expected
            held = external_ids.get(stamp_key(self._cluster, group))
            stored = None if held is None else _stamp(held)
            if held is not None and stored is None:
                fail([asked], self._garbage(group).diagnostics())
            elif stored != expected:
                asked.tell(SwitchConflict(group, stored, self._here.present(group, ports)))
        return None

    def _changes(self, action: ApplyTunnels, ports: BridgePorts) -> tuple[list[GreEnd], list[str]]:
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
            if self._database.api.lookup("Bridge", end.bridge, None) is None:
                raise DataPlaneError(
                    f"bridge {end.bridge} is not there at site {self._site}",
                    f"create it (`ovs-vsctl add-br {end.bridge} -- set-fail-mode {end.bridge} secure`)",
                )
            state = end_state(self._database, end, ports)
            if state is EndState.FOREIGN:
                raise DataPlaneError(
                    f"port {end.interface} at site {self._site} is not ours (no external_ids:{MARK}={self._cluster})",
                    "rename or delete it, or rename the service",
                )
            if state is not EndState.RIGHT:
                add.append(end)
        gone = (client_end(tunnel, self._cluster) for tunnel in action.remove)
        return add, [end.interface for end in gone if end_state(self._database, end, ports).ours]

    def _check_created(self, action: ApplyTunnels) -> None:
        for tunnel in action.add:
            interface = named(self._database, "Interface", tunnel.interface)
            if interface is not None and interface["ofport"] == -1:
                raise DataPlaneError(
                    f"ovs-vswitchd could not create {tunnel.interface}: {interface['error'] or 'it does not say why'}",
                    f"look for another tunnel to {tunnel.remote_address} with key {tunnel.key}",
                )

    def _garbage(self, group: str) -> DataPlaneError:
        key = stamp_key(self._cluster, group)
        return DataPlaneError(
            f"OVSDB of {self._site} holds no stamp under external_ids:{key}, but something else; it is left alone",
            f"find out who wrote it, then `ovs-vsctl remove Open_vSwitch . external_ids '\"{key}\"'`",
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
                elif not isinstance(change, RowChange) or self._here.concerned_by(change):
                    self._tell_soon()
        except DatabaseClosed as error:
            self._lost(str(error))
        except Exception as error:  # noqa: BLE001 - never silently: whoever depends on us must not believe old news
            _log.error("the data plane can no longer be watched", site=self._site, error=repr(error))
            self._lost(f"internal error: {error!r}; restart the agent")

    def _tell_soon(self) -> None:
        """One transaction is several changes: what waits in the queue is taken before we look."""
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        if self._task is None or not self._database.connected:
            return
        seen = self._here.seen()
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
