"""Changes of rows as an asynchronous iterator that never goes quiet without saying so.

A lost connection is a Disconnected; then Resynced, followed by what changed meanwhile. A consumer that is too slow
finds Overflowed in place of the changes it missed. Closing the Database raises DatabaseClosed in every iterator.
It does NOT deliver the rows present at the start: subscribe first, then read `Database.rows()`.
"""

from __future__ import annotations

import asyncio
import uuid
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from aioovs.errors import DatabaseClosed

Kind = Literal["insert", "update", "delete"]
Snapshot = Mapping[str, Mapping[uuid.UUID, dict[str, Any]]]


@dataclass(frozen=True)
class RowChange:
    """One row changed. `old` holds the former values of the changed columns (all of a deleted row, none of a new
    one), `new` all columns as they are now (none of a deleted row)."""

    table: str
    uuid: uuid.UUID
    kind: Kind
    old: dict[str, Any]
    new: dict[str, Any]


@dataclass(frozen=True)
class Disconnected:
    """The connection is gone; what `rows()` says is getting old."""

    reason: str


@dataclass(frozen=True)
class Resynced:
    """Connected again. The differences to what was last known follow as RowChange."""


@dataclass(frozen=True)
class Overflowed:
    """`lost` changes were discarded because they were not consumed in time: read `rows()` again."""

    lost: int


Change = RowChange | Disconnected | Resynced | Overflowed


class Changes:
    """The iterator; also an asynchronous context manager that unsubscribes at its end. For one consumer."""

    def __init__(self, tables: frozenset[str], limit: int) -> None:
        self._tables = tables
        self._limit = limit
        self._queue: deque[Change] = deque()
        self._lost = 0
        self._ended: DatabaseClosed | None = None
        self._wake: asyncio.Future[None] | None = None

    def push(self, change: Change) -> None:
        """Queues a change of a table that is wanted, or a marker."""
        if self._ended is not None or (isinstance(change, RowChange) and change.table not in self._tables):
            return
        if len(self._queue) >= self._limit:
            self._lost += len(self._queue)
            self._queue.clear()
        self._queue.append(change)
        self._alert()

    def end(self, error: DatabaseClosed) -> None:
        """The consumer gets `error` after what is queued."""
        self._ended = self._ended or error
        self._alert()

    def wants(self, table: str) -> bool:
        """Whether changes of `table` are delivered here."""
        return table in self._tables

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        while True:
            if self._lost:
                lost, self._lost = self._lost, 0
                return Overflowed(lost)
            if self._queue:
                return self._queue.popleft()
            if self._ended is not None:
                raise self._ended
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(DatabaseClosed("this iterator of changes was closed"))
        self._queue.clear()

    def _alert(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Audience:
    """All who listen. It holds nobody: an iterator that its consumer has let go is forgotten."""

    def __init__(self) -> None:
        self._members: weakref.WeakSet[Changes] = weakref.WeakSet()
        self._ended: DatabaseClosed | None = None

    def add(self, changes: Changes) -> None:
        """`changes` is told of everything from now on."""
        self._members.add(changes)
        if self._ended is not None:
            changes.end(self._ended)

    def wants(self, table: str) -> bool:
        """Whether anybody wants changes of this table."""
        return any(changes.wants(table) for changes in self._members)

    def tell(self, *news: Change) -> None:
        """Everybody gets these, in order."""
        for changes in list(self._members):
            for change in news:
                changes.push(change)

    def end(self, error: DatabaseClosed) -> None:
        """Everybody gets `error` at the end of what is queued."""
        self._ended = self._ended or error
        for changes in list(self._members):
            changes.end(self._ended)


def differences(old: Snapshot, new: Snapshot) -> list[RowChange]:
    """What turns `old` into `new`: deletions first, so that a name is free before it is taken again."""
    gone: list[RowChange] = []
    come: list[RowChange] = []
    for table, rows in old.items():
        fresh = new.get(table, {})
        gone += [RowChange(table, row, "delete", columns, {}) for row, columns in rows.items() if row not in fresh]
    for table, rows in new.items():
        known = old.get(table, {})
        for row, columns in rows.items():
            before = known.get(row)
            if before is None:
                come.append(RowChange(table, row, "insert", {}, columns))
            elif before != columns:
                changed = {name: value for name, value in before.items() if columns.get(name) != value}
                come.append(RowChange(table, row, "update", changed, columns))
    return gone + come
