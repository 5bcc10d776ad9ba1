"""Our copy of a database: python-ovs' Idl on a Session, snapshots of its rows, and ovsdbapp's API bound to it.

A replica lives as long as its session. Every connection builds a new one from the schema that this server has, so
that a restarted, replaced or upgraded database needs no special case; Database compares the two for its consumers.

It does NOT send transactions (transaction.py).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import ovs.db.data
import ovs.db.error
import ovs.db.idl
import ovsdbapp.backend.ovs_idl
from ovsdbapp.backend.ovs_idl import idlutils
from ovsdbapp.schema.open_vswitch import impl_idl

from aioovs.errors import CommandError, NotConnected, SchemaError
from aioovs.session import Session

Columns = dict[str, Any]
NOISY_COLUMNS = frozenset({"statistics", "rstp_statistics"})  # rewritten every few seconds, read by nobody here


@dataclass(frozen=True)
class RowView:
    """A snapshot of one row as plain Python: maps are dicts, sets are lists, an optional value is itself or None,
    and a reference is the UUID of the row that it names. Changing it changes nothing."""

    table: str
    uuid: uuid.UUID
    columns: Columns

    def __getitem__(self, column: str) -> Any:
        return self.columns[column]


class CheckedRow(ovs.db.idl.Row):  # type: ignore[misc]
    """A row that refuses a bad value: python-ovs' own drops the write and carries on without a word."""

    def _check(self, column_name: str, value: Any) -> None:
        column = self._table.columns.get(column_name)
        if column is None:
            raise CommandError(f"{self._table.name} has no monitored column {column_name!r}")
        try:
            ovs.db.data.Datum.from_python(column.type, value, ovs.db.idl._row_to_uuid)
        except (ovs.db.error.Error, AttributeError) as error:
            raise CommandError(f"{self._table.name}.{column_name} cannot hold {value!r}: {error}") from error

    def __setattr__(self, column_name: str, value: Any) -> None:
        self._check(column_name, value)
        if self._data is not None and not self._table.columns[column_name].mutable:
            # the server would refuse, and python-ovs would leave its index on the refused value
            raise CommandError(f"{self._table.name}.{column_name} cannot be changed: delete the row and add another")
        super().__setattr__(column_name, value)

    def addvalue(self, column_name: str, key: Any) -> None:
        """As Row.addvalue. Raises CommandError."""
        self._check(column_name, key)
        super().addvalue(column_name, key)

    def delvalue(self, column_name: str, key: Any) -> None:
        """As Row.delvalue. Raises CommandError."""
        self._check(column_name, key)
        super().delvalue(column_name, key)

    def setkey(self, column_name: str, key: Any, value: Any) -> None:
        """As Row.setkey. Raises CommandError."""
        self._check(column_name, {key: value})
        super().setkey(column_name, key, value)


class Replica(ovs.db.idl.Idl):  # type: ignore[misc]
    """An Idl whose bytes a Session moves. `notice(kind, row, old)` is told of each change once it is synced."""

    def __init__(
        self,
        session: Session,
        schema_json: dict[str, Any],
        tables: Mapping[str, Sequence[str]] | None,
        notice: Callable[[str, Any, Any], None],
    ) -> None:
        name = schema_json["name"]
        chosen = choose_columns(schema_json, tables)
        helper = ovs.db.idl.SchemaHelper(schema_json=schema_json)
        for table, columns in chosen.items():
            helper.register_columns(table, columns)
        try:
            super().__init__("unix:", helper, probe_interval=0)  # its own session never runs: no socket is made
        except ovs.db.error.Error as error:
            raise SchemaError(f"{session.get_name()}: schema {name} cannot be understood: {error}") from error
        self._session = session
        self._notice = notice
        self.synced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        _create_indices(self)

    def step(self) -> None:
        """Digests a batch of messages."""
        self.run()
        if self.state == self.IDL_S_MONITORING and not self.synced.done():
            self.synced.set_result(None)

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        """The Idl's hook: one call for each changed row."""
        if self.state == self.IDL_S_MONITORING:
            self._notice(event, row, updates)

    def snapshot(self, table: str) -> dict[uuid.UUID, Columns]:
        """All rows of a table. Raises SchemaError for a table that is not monitored."""
        if table not in self.tables:
            raise SchemaError(f"table {table!r} is not monitored: name it in `tables`")
        return {row.uuid: plain_columns(row) for row in self.tables[table].rows.values()}

    def row(self, table: str, row_uuid: uuid.UUID) -> Columns | None:
        """One row, or None."""
        found = self.tables[table].rows.get(row_uuid) if table in self.tables else None
        return None if found is None else plain_columns(found)

    def switch_config(self, column: str) -> int | None:
        """`next_cfg` or `cur_cfg` of the one Open_vSwitch row; None in databases that have none."""
        if "Open_vSwitch" not in self.tables or column not in self.tables["Open_vSwitch"].columns:
            return None
        for row in self.tables["Open_vSwitch"].rows.values():
            return int(getattr(row, column))
        return None

    # Two of the Idl's private methods are replaced; the mangled names are how Python spells that.

    def _Idl__create_row(self, table: Any, row_uuid: uuid.UUID) -> CheckedRow:  # noqa: N802
        return CheckedRow(self, table, row_uuid, ovs.db.idl.ColumnDefaultDict(table))

    def _Idl__parse_update(self, update: Any, version: str, tables: Any = None) -> None:  # noqa: N802
        # The original logs an update that it cannot apply and goes on with a replica that is wrong.
        self._Idl__do_parse_update(update, version, tables or self.tables)


def choose_columns(schema_json: dict[str, Any], tables: Mapping[str, Sequence[str]] | None) -> dict[str, list[str]]:
    """What to monitor: `tables` plus what a transaction needs itself; None is all but the statistics.

    Raises SchemaError for a table or column that the schema does not have.
    """
    known = {name: set(table["columns"]) for name, table in schema_json["tables"].items()}
    if tables is None:
        return {name: sorted(columns - NOISY_COLUMNS) for name, columns in known.items()}
    chosen: dict[str, set[str]] = {name: set(columns) for name, columns in tables.items()}
    if {"next_cfg", "cur_cfg"} <= known.get("Open_vSwitch", set()):
        chosen.setdefault("Open_vSwitch", set()).update({"next_cfg", "cur_cfg"})
    for table, columns in chosen.items():
        missing = sorted(columns - known.get(table, set()))
        if table not in known or missing:
            what = f"columns {', '.join(missing)} in table {table}" if table in known else f"table {table}"
            version = schema_json.get("version", "?")
            raise SchemaError(
                f"schema {schema_json['name']} {version} has no {what}: is this the right database, and OVS new enough?"
            )
    # an empty list would mean "all columns" to python-ovs
    return {table: sorted(columns or known[table] - NOISY_COLUMNS) for table, columns in chosen.items()}


def plain_columns(row: Any) -> Columns:
    """The columns that `row` holds, as plain Python."""
    return {name: _plain(row._data[name]) for name in row._data}


def _plain(datum: Any) -> Any:
    value = datum.to_python(lambda atom, _base: atom)
    if datum.type.is_optional():
        return value[0] if value else None
    return value


def _create_indices(replica: Replica) -> None:
    # ovsdbapp would index by the lookup column even where that column is not monitored. A column that can change is
    # not indexed: python-ovs does not restore an index when a transaction fails (lookups then scan the table).
    for table in replica.tables.values():
        column = "name" if "name" in table.columns else idlutils.get_index_column(table)
        if column in table.columns and not table.columns[column].mutable:
            table.rows.index_create(idlutils.index_name(column)).add_column(column)


class Binding:
    """What ovsdbapp takes for its connection: it leads to the present replica and runs nothing itself."""

    is_running = False
    timeout = 0

    def __init__(self) -> None:
        self.lock = nullcontext()
        self.replica: Replica | None = None

    @property
    def idl(self) -> Replica:
        """The present replica. Raises NotConnected before the first connection."""
        if self.replica is None:
            raise NotConnected("not opened yet: `async with Database(...)` or `await open()` first")
        return self.replica

    def queue_txn(self, txn: Any) -> None:
        """Refuses: only reading commands may be executed directly."""
        raise CommandError(f"{txn} would block the event loop: pass it to `await Database.transact(...)`")


class _BoundToInstance:
    """ovsdbapp keeps the connection in a class attribute, so two databases would be one; here each has its own."""

    _bound: Binding

    @property
    def ovsdb_connection(self) -> Binding:
        """This database's connection."""
        return self._bound

    @ovsdb_connection.setter
    def ovsdb_connection(self, binding: Binding) -> None:
        self._bound = binding


class OpenVSwitchApi(_BoundToInstance, impl_idl.OvsdbIdl):  # type: ignore[misc]
    """ovsdbapp's Open_vSwitch API, bound to one Database."""


class PlainApi(_BoundToInstance, ovsdbapp.backend.ovs_idl.Backend):  # type: ignore[misc]
    """ovsdbapp's generic commands (db_set, db_create, ...) for other schemas."""


def bind_api(schema: str, binding: Binding) -> Any:
    """ovsdbapp's API for `schema` over `binding`."""
    kind = OpenVSwitchApi if schema == "Open_vSwitch" else PlainApi
    return kind(binding, start=False, auto_index=False)
