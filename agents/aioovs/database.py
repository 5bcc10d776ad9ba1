"""The public face: one OVSDB database on the event loop.

No threads and no polling. It does NOT decide for its caller: nothing is retried or re-run silently.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import ovs.jsonrpc
from ovsdbapp.exceptions import OvsdbAppException

from aioovs.changes import Changes
from aioovs.errors import CommandError, SchemaError, TransactionTimeout
from aioovs.keeper import Keeper
from aioovs.remotes import Remote, SslFiles
from aioovs.replica import RowView, bind_api
from aioovs.session import Session, Timing
from aioovs.transaction import (
    Guard,
    Operation,
    Outcome,
    Transaction,
    build,
    failed_interfaces,
    guard_operations,
    judge,
)


class Database:
    """One OVSDB database, e.g. `async with Database("unix:/run/openvswitch/db.sock") as db`.

    remote: `unix:PATH`, `tcp:HOST[:PORT]` or `ssl:HOST[:PORT]` (the last with `ssl=SslFiles(...)`).
    tables: columns to monitor by table; next_cfg and cur_cfg are added. None: everything but statistics. Monitor
        what you use: every change of a monitored column costs time on the loop.
    connect_deadline_seconds: bounds open(), and each later attempt to connect.
    liveness_interval_seconds, liveness_deadline_seconds: an echo goes out every interval; a server that sends
        nothing within the deadline after one is dead to us, on unix sockets too.
    reconnect_wait_seconds: before an attempt to reconnect; doubles up to ten times itself while they fail.

    Raises ConnectError for a remote that cannot be parsed, ValueError for a bound that makes no sense.
    """

    def __init__(
        self,
        remote: str,
        *,
        schema: str = "Open_vSwitch",
        tables: Mapping[str, Sequence[str]] | None = None,
        ssl: SslFiles | None = None,
        connect_deadline_seconds: float = 5.0,
        liveness_interval_seconds: float = 1.0,
        liveness_deadline_seconds: float = 2.0,
        reconnect_wait_seconds: float = 0.1,
    ) -> None:
        timing = Timing(
            connect_deadline_seconds, liveness_interval_seconds, liveness_deadline_seconds, reconnect_wait_seconds
        )
        self._schema = schema
        self._keeper = Keeper(Remote.parse(remote), schema, tables, ssl, timing)
        self._api = bind_api(schema, self._keeper.binding)

    async def open(self) -> None:
        """Connects and reads the tables; tries again until `connect_deadline_seconds`.

        Raises ConnectError with the last reason, or SchemaError at once.
        """
        await self._keeper.open()

    async def close(self) -> None:
        """Ends the connection, every wait and every iterator. May be called again."""
        await self._keeper.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def api(self) -> Any:
        """ovsdbapp's API of this database. Its commands go to `transact`; reading ones (`list_br`, `db_get`, ...)
        may also be run at once by `.execute(check_error=True)`, on the replica."""
        return self._api

    @property
    def connected(self) -> bool:
        """Whether the replica is live and transactions can be sent."""
        return self._keeper.session is not None

    @property
    def problem(self) -> str | None:
        """Why there is no connection, for logs and metrics; None while connected."""
        return None if self.connected else self._keeper.problem

    async def wait_connected(self, deadline_seconds: float) -> None:
        """Until connected. Raises NotConnected at the deadline, with the last reason; DatabaseClosed."""
        await self._keeper.wait_connected(deadline_seconds)

    async def wait_applied(self, next_cfg: int, deadline_seconds: float) -> None:
        """Until ovs-vswitchd has applied `next_cfg`, an Outcome's.

        Raises TransactionTimeout or ConnectionLost, both with `committed` True; NotConnected.
        """
        self._keeper.live()
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._keeper.applied(next_cfg)
        except TimeoutError:
            raise _timed_out(deadline_seconds, next_cfg, committed=True) from None

    def rows(self, table: str) -> tuple[RowView, ...]:
        """Snapshots of all rows. While disconnected: as last known. Raises NotConnected before open(), SchemaError
        for a table that is not monitored."""
        return tuple(RowView(table, row, columns) for row, columns in self._keeper.binding.idl.snapshot(table).items())

    def row(self, table: str, row_uuid: uuid.UUID) -> RowView | None:
        """A snapshot of one row, None if it does not exist. As rows()."""
        self._require_monitored(table)
        columns = self._keeper.binding.idl.row(table, row_uuid)
        return None if columns is None else RowView(table, row_uuid, columns)

    def external_id(self, table: str, row_uuid: uuid.UUID, key: str) -> str | None:
        """One key of a row's external_ids; None if the row or the key does not exist. As rows()."""
        row = self.row(table, row_uuid)
        if row is None:
            return None
        if "external_ids" not in row.columns:
            raise SchemaError(f"{table}.external_ids is not monitored: name it in `tables`")
        value: str | None = row.columns["external_ids"].get(key)
        return value

    def changes(self, *tables: str, limit: int = 1024) -> Changes:
        """An iterator of the changes from now on in `tables` (none: all that are monitored).

        `limit` bounds what waits to be consumed. Raises SchemaError for a table that is not monitored.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        self._require_monitored(*tables)
        changes = Changes(frozenset(tables or self._keeper.binding.idl.tables), limit)
        self._keeper.audience.add(changes)
        return changes

    async def transact(
        self,
        *commands: Any,
        guard: Guard | Sequence[Guard] | None = None,
        deadline_seconds: float = 1.0,
        wait_applied: bool = False,
        durable: bool = False,
        comment: str | None = None,
    ) -> Outcome:
        """Runs commands (ovsdbapp's from `api`, or ours) in one transaction.

        They are built and sent before this yields for the first time. `deadline_seconds` covers everything;
        cancelling is safe. In both cases what was sent may still land later: guard what must not.
        With several guards all must hold, or nothing is written; GuardFailed tells of one that did not.
        `durable` answers only once the server has it on disk. `comment` goes into the server's log.

        Without a connection this fails at once instead of waiting: a decision that has waited is a stale one.
        Raises NotConnected, CommandError, GuardFailed, Conflict, TransactionError, TransactionTimeout,
        ConnectionLost, DatabaseClosed (see errors.py).
        """
        submitted_at = time.monotonic()
        if not 0 < deadline_seconds <= 3600:
            raise ValueError(f"deadline_seconds must be above 0 and at most 3600, not {deadline_seconds!r}")
        session, replica = self._keeper.live()
        if wait_applied and replica.switch_config("cur_cfg") is None:
            raise CommandError("wait_applied: there is no Open_vSwitch row (`ovs-vsctl --no-wait init`)")
        guards = [guard] if isinstance(guard, Guard) else list(guard or ())
        before = guard_operations(replica, guards)
        txn = build(replica, commands, before, [{"op": "commit", "durable": True}] if durable else [], comment)
        if time.monotonic() - submitted_at >= deadline_seconds:
            txn.abort()
            raise TransactionTimeout(f"building alone took {deadline_seconds:g} s; nothing was sent", sent=False)
        changed = txn.send()
        committed_at, next_cfg, applied_at = 0.0, None, None
        try:
            async with asyncio.timeout(submitted_at + deadline_seconds - time.monotonic()):
                if changed:
                    judge(await self._keeper.reply(txn.replied), replica, guards, len(before))
                elif guards:
                    judge(await self._send_alone(session, before), replica, guards, len(before))
                committed_at = time.monotonic()
                next_cfg = txn.new_next_cfg() if changed else replica.switch_config("next_cfg")
                _post_commit(commands, txn, changed)
                if wait_applied and next_cfg is not None:
                    await self._keeper.applied(next_cfg)
                    applied_at = time.monotonic()
        except TimeoutError:
            raise _timed_out(deadline_seconds, next_cfg, committed=committed_at > 0) from None
        finally:
            txn.forget()
        applied = next_cfg is not None and (replica.switch_config("cur_cfg") or 0) >= next_cfg
        failed = failed_interfaces(replica, txn) if applied and changed else ()
        return Outcome(changed, next_cfg, applied, submitted_at, committed_at, applied_at, failed)

    async def _send_alone(self, session: Session, operations: list[Operation]) -> Any:
        # the commands change nothing, so the Idl sends nothing; the guard still deserves an answer
        message = await session.request("transact", [self._schema, *operations])
        return message.result if message.type == ovs.jsonrpc.Message.T_REPLY else message.error

    def _require_monitored(self, *tables: str) -> None:
        for table in tables:
            if table not in self._keeper.binding.idl.tables:
                raise SchemaError(f"table {table!r} is not monitored: name it in `tables`")


def _timed_out(deadline_seconds: float, next_cfg: int | None, *, committed: bool) -> TransactionTimeout:
    if committed:
        text = f"committed, but ovs-vswitchd has not applied it (next_cfg {next_cfg}) within {deadline_seconds:g} s"
    else:
        text = f"no answer within {deadline_seconds:g} s; the transaction may still land: read the rows again"
    return TransactionTimeout(text, sent=True, committed=committed, next_cfg=next_cfg)


def _post_commit(commands: Sequence[Any], txn: Transaction, changed: bool) -> None:
    if not changed:
        return
    for command in commands:
        try:
            command.post_commit(txn)  # sets .result, e.g. the UUID of a created row
        except (LookupError, OvsdbAppException):
            command.result = None  # somebody has deleted the row already
