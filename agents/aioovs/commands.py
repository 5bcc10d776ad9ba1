"""Commands beside ovsdbapp's own, for maps that several writers share.

ovsdbapp's `db_set` on a map writes the whole column and conflicts with every other writer of it. These touch the
named keys alone. A map insert over an existing key changes nothing in OVSDB (RFC 7047 section 5.1), so a key is
deleted before it is inserted, in one mutate operation; that is what python-ovs' `Row.setkey` sends.

They always write: whether a write is needed is the caller's question.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from ovsdbapp.backend.ovs_idl.command import BaseCommand

from aioovs.errors import CommandError


class _KeysCommand(BaseCommand):  # type: ignore[misc]
    def __init__(self, api: Any, table: str, row: uuid.UUID | str, column: str) -> None:
        super().__init__(api)
        self.table = table
        self.row = row
        self.column = column

    def _row(self) -> Any:
        tables = self.api.tables
        if self.table not in tables:
            raise CommandError(f"table {self.table!r} is not monitored: name it in `tables`")
        column = tables[self.table].columns.get(self.column)
        if column is None or not column.type.is_map():
            raise CommandError(f"{self.table}.{self.column} is not a monitored map column")
        return self.api.lookup(self.table, self.row)


class SetKeys(_KeysCommand):
    """Sets these keys of a map column; other keys, and their writers, are left alone.

    `row` is a UUID or what ovsdbapp's lookup takes (a bridge's name, "." for the Open_vSwitch row).
    """

    def __init__(
        self, api: Any, table: str, row: uuid.UUID | str, column: str, mapping: Mapping[str, str | int]
    ) -> None:
        super().__init__(api, table, row, column)
        self.mapping = dict(mapping)

    def run_idl(self, txn: Any) -> None:
        """Called while a transaction is built."""
        row = self._row()
        for key, value in self.mapping.items():
            row.setkey(self.column, key, value)


class RemoveKeys(_KeysCommand):
    """Removes these keys of a map column, whatever they hold; an absent key is no error."""

    def __init__(self, api: Any, table: str, row: uuid.UUID | str, column: str, keys: Iterable[str]) -> None:
        super().__init__(api, table, row, column)
        self.keys = tuple(keys)

    def run_idl(self, txn: Any) -> None:
        """Called while a transaction is built."""
        row = self._row()
        for key in self.keys:
            row.delkey(self.column, key)
            # a key set earlier in the same transaction would otherwise be inserted after its removal
            row._mutations.get("_inserts", {}).get(self.column, {}).pop(key, None)
