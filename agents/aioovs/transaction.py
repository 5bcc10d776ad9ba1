"""One transaction: built and sent in one step, with the guard first, and its reply judged.

The guard is an OVSDB `wait` with timeout 0 (RFC 7047 section 5.2.6). python-ovs can only append operations, where a
guard would see the transaction's own writes, so the session puts it in front of what the Idl generated.
It does NOT wait: Database owns deadlines.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ovs.db.data
import ovs.db.error
import ovs.db.idl

from aioovs.errors import CommandError, Conflict, GuardFailed, NotConnected, TransactionError
from aioovs.replica import CheckedRow, Replica

Operation = dict[str, Any]
MAX_OUTSTANDING = 256


@dataclass(frozen=True)
class Guard:
    """Compare-and-set on one key of a map column: the transaction lands only if the row exists and the key holds
    exactly `expected`; None means that the key must be absent. The server compares, never our copy."""

    table: str
    row: uuid.UUID
    key: str
    expected: str | None
    column: str = "external_ids"


@dataclass(frozen=True)
class Outcome:
    """What became of a transaction. Times are `time.monotonic()`.

    changed: False when the commands changed nothing of what the replica holds; then nothing was written (a guard
        was checked with the server all the same) and `next_cfg` is the number last asked of ovs-vswitchd by anyone.
    applied: ovs-vswitchd's cur_cfg has reached `next_cfg`, as far as we have heard.
    next_cfg: None where the database has none.
    submitted_at: when transact() was called; building the commands counts.
    committed_at: when the server's answer arrived, or when it was clear that nothing had to be sent.
    applied_at: when cur_cfg was seen to reach next_cfg; None unless that was waited for.
    failed_interfaces: interfaces added here that ovs-vswitchd could not create (ofport -1), once applied.
    """

    changed: bool
    next_cfg: int | None
    applied: bool
    submitted_at: float
    committed_at: float
    applied_at: float | None = None
    failed_interfaces: tuple[str, ...] = ()


class Transaction(ovs.db.idl.Transaction):  # type: ignore[misc]
    """python-ovs' transaction with operations around the generated ones and a future for the reply."""

    def __init__(self, replica: Replica, before: Sequence[Operation], after: Sequence[Operation]) -> None:
        super().__init__(replica)
        self.expected_ifaces: set[uuid.UUID] = set()  # ovsdbapp's add_port reports here
        self.replied: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._before = before
        self._after = after

    def insert(self, table: Any, new_uuid: uuid.UUID | None = None, persist_uuid: bool = False) -> CheckedRow:
        """As the original, but the row refuses bad values."""
        row = CheckedRow(self.idl, table, new_uuid or uuid.uuid4(), None, persist_uuid=persist_uuid)
        table.rows[row.uuid] = row
        self._txn_rows[row.uuid] = row
        return row

    def send(self) -> bool:
        """Commits; False when there is nothing to change and nothing was sent. Raises CommandError, NotConnected."""
        self.idl._session.surround(self._before, self._after)
        try:
            status = self.commit()
        finally:
            self.idl._session.surround((), ())
        if status is None:  # python-ovs gives up so on a value that it cannot encode
            self.abort()
            raise CommandError("a value could not be encoded; nothing was sent")
        if status == self.TRY_AGAIN:
            raise NotConnected("the connection cannot take the transaction; nothing was sent")
        return bool(status != self.UNCHANGED)

    def new_next_cfg(self) -> int | None:
        """What a committed transaction has raised next_cfg to; None where there is none, or its row has gone."""
        if self._inc_row is None or self._status != self.SUCCESS:
            return None
        return int(self.get_increment_new_value())

    def forget(self) -> None:
        """A reply that still comes is ignored."""
        self.idl._outstanding_txns.pop(self._request_id, None)

    def _process_reply(self, message: Any) -> None:
        answer = message.result if message.type == message.T_REPLY else message.error
        if message.type == message.T_REPLY and isinstance(answer, list):
            message.result = answer[len(self._before) :]  # the original counts its own operations only
        super()._process_reply(message)
        if not self.replied.done():
            self.replied.set_result(answer)


def build(
    replica: Replica,
    commands: Sequence[Any],
    before: Sequence[Operation],
    after: Sequence[Operation],
    comment: str | None,
) -> Transaction:
    """Runs the commands on the replica. Raises CommandError with the command's own reason; leaves nothing behind."""
    if len(replica._outstanding_txns) >= MAX_OUTSTANDING:
        raise TransactionError(f"{MAX_OUTSTANDING} transactions await the server: slow down; nothing was sent")
    txn = Transaction(replica, before, after)
    if comment:
        txn.add_comment(comment)
    command: Any = None
    try:
        _ask_for_next_cfg(replica)
        for command in commands:
            command.run_idl(txn)
    except Exception as error:
        txn.abort()
        # CommandError, RowNotFound and RuntimeError explain themselves, a KeyError does not
        reason = str(error) if not isinstance(error, LookupError) else f"{type(error).__name__}: {error}"
        which = f"{type(command).__name__}: " if command is not None else ""
        raise CommandError(f"{which}{reason or type(error).__name__}; nothing was sent") from error
    return txn


def _ask_for_next_cfg(replica: Replica) -> None:
    # next_cfg makes ovs-vswitchd say when it has applied this; other schemas have none
    if "Open_vSwitch" not in replica.tables or "next_cfg" not in replica.tables["Open_vSwitch"].columns:
        return
    for switch in replica.tables["Open_vSwitch"].rows.values():
        switch.increment("next_cfg")
        return
    raise CommandError("the Open_vSwitch table is empty: initialise it (`ovs-vsctl --no-wait init`)")


def guard_operations(replica: Replica, guards: Sequence[Guard]) -> list[Operation]:
    """The `wait`s that fail unless the row exists and its keys are as expected. Raises CommandError.

    However many keys of one column are guarded, it takes two operations: one for the values expected, one for the keys
    that must be absent. OVSDB has no condition for "key absent", so that one compares the whole map with what we last
    read, less the keys: another writer's other key then makes it fail too, which is reported as Conflict.
    """
    operations: list[Operation] = []
    for table, row, column in dict.fromkeys((guard.table, guard.row, guard.column) for guard in guards):
        keys = {
            guard.key: guard.expected
            for guard in guards
            if (guard.table, guard.row, guard.column) == (table, row, column)
        }
        operations += _waits(replica, table, row, column, keys)
    return operations


def _waits(
    replica: Replica, table: str, row_uuid: uuid.UUID, column_name: str, keys: dict[str, str | None]
) -> Iterator[Operation]:
    known = replica.tables.get(table)
    column = known.columns.get(column_name) if known is not None else None
    if column is None or not column.type.is_map():
        raise CommandError(f"guard: {table}.{column_name} is not a monitored map column; nothing was sent")
    itself = ["uuid", str(row_uuid)]
    operation: Operation = {"op": "wait", "timeout": 0, "table": table, "until": "=="}
    this_row = ["_uuid", "==", itself]
    expected = {key: value for key, value in keys.items() if value is not None}
    if expected:
        where = [this_row, [column_name, "includes", _map_json(column, expected)]]
        yield operation | {"where": where, "columns": ["_uuid"], "rows": [{"_uuid": itself}]}
    if len(expected) < len(keys):
        row = replica.row(table, row_uuid)
        absent = keys.keys() - expected.keys()
        rest = {key: value for key, value in (row[column_name] if row else {}).items() if key not in absent}
        rows = [{column_name: _map_json(column, rest)}]
        yield operation | {"where": [this_row], "columns": [column_name], "rows": rows}


def _map_json(column: Any, mapping: dict[str, Any]) -> Any:
    try:
        return ovs.db.data.Datum.from_python(column.type, mapping, lambda value: value).to_json()
    except ovs.db.error.Error as error:
        raise CommandError(f"guard: {mapping!r} does not fit {column.name}: {error}; nothing was sent") from error


def judge(answer: Any, replica: Replica, guards: Sequence[Guard], first: int) -> None:
    """Raises what the server's answer to `transact` means; returns if it was committed.

    `answer` is the array of results, the `first` ones those of the guards, or the error of the whole request.
    """
    if not isinstance(answer, list):
        raise TransactionError(f"the server refused the request: {_text(answer)}; nothing was written")
    for index, result in enumerate(answer):
        if not isinstance(result, dict) or result.get("error") is None:
            continue
        if result["error"] != "timed out":
            raise TransactionError(f"the server refused: {_text(result)}; nothing was written")
        if index < first:
            raise guard_failure(replica, guards)
        raise Conflict(
            "another writer changed a column that a command had read; nothing was written: read again, decide again"
        )


def guard_failure(replica: Replica, guards: Sequence[Guard]) -> TransactionError:
    """Which guard failed, and why. The server sends earlier commits before it answers, so the replica knows."""
    places = {(guard.table, guard.row) for guard in guards}
    rows = {place: replica.row(*place) for place in places}
    for guard in guards:
        row = rows[guard.table, guard.row]
        held = row[guard.column].get(guard.key) if row is not None else None
        if row is not None and held == guard.expected:
            continue
        now = "the row does not exist" if row is None else "it is absent" if held is None else f"it holds {held!r}"
        wanted = "to be absent" if guard.expected is None else f"to hold {guard.expected!r}"
        return GuardFailed(
            f"{guard.table}.{guard.column}:{guard.key} was expected {wanted}, but {now}; nothing was written",
            expected=guard.expected,
            held=held,
            row_exists=row is not None,
        )
    guard = guards[0]
    return Conflict(
        f"another key of {guard.table}.{guard.column} changed at the same moment; nothing was written: try again"
    )


def _text(error: Any) -> str:
    if isinstance(error, dict):
        return ": ".join(str(error[name]) for name in ("error", "details") if error.get(name))
    return str(error)


def failed_interfaces(replica: Replica, txn: Transaction) -> tuple[str, ...]:
    """Names of the interfaces that `txn` added and that ovs-vswitchd could not create."""
    found = []
    for provisional in txn.expected_ifaces:
        row = replica.row("Interface", txn.get_insert_uuid(provisional) or provisional)
        if row is not None and row.get("ofport") == -1:
            found.append(str(row.get("name", "?")))
    return tuple(sorted(found))
