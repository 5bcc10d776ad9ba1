"""Keeps one database connected: connects, builds a replica, swaps it in, notices the loss, begins again.

Its only timers are the echo of a live connection and the wait between attempts of a lost one. It also holds what
must end with the connection: replies and `applied` awaited, and the subscribers who are told of the gap.
It does NOT build or judge transactions.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ovs.db.idl
import ovs.jsonrpc

from aioovs.changes import Audience, Disconnected, Kind, Resynced, RowChange, differences
from aioovs.errors import ConnectError, ConnectionLost, DatabaseClosed, NotConnected, SchemaError
from aioovs.remotes import Remote, SslFiles
from aioovs.replica import Binding, Replica, plain_columns
from aioovs.session import Session, Timing

_log = logging.getLogger(__name__)
_KINDS: dict[str, Kind] = {
    ovs.db.idl.ROW_CREATE: "insert",
    ovs.db.idl.ROW_UPDATE: "update",
    ovs.db.idl.ROW_DELETE: "delete",
}
MAX_WAIT_GROWTH = 10


class Keeper:
    """See the module. `session` is None exactly while there is no live replica."""

    def __init__(
        self,
        remote: Remote,
        schema: str,
        tables: Mapping[str, Sequence[str]] | None,
        ssl: SslFiles | None,
        timing: Timing,
    ) -> None:
        self.name = remote.name
        self.binding = Binding()
        self.session: Session | None = None
        self.problem = "not opened yet"
        self._remote, self._schema, self._tables, self._ssl, self._timing = remote, schema, tables, ssl, timing
        self._task: asyncio.Task[None] | None = None
        self._dead: Session | None = None  # the live one before, until its descriptor is closed
        self._lost = asyncio.Event()
        self._ended: DatabaseClosed | None = None
        self._waiting: set[asyncio.Future[Any]] = set()  # fail with the connection
        self._applying: dict[asyncio.Future[None], int] = {}  # cur_cfg awaited; committed, so they fail otherwise
        self._connecting: set[asyncio.Future[None]] = set()
        self.audience = Audience()

    async def open(self) -> None:
        """Connects, trying again until the deadline, and keeps connected. Raises ConnectError, SchemaError."""
        if self._task is not None or self._ended is not None:
            raise ValueError("a Database is opened once: make a new one")
        deadline = time.monotonic() + self._timing.connect_deadline_seconds
        wait_seconds = self._timing.reconnect_wait_seconds
        while True:
            try:
                await self._connect(max(deadline - time.monotonic(), 0.001))
                break
            except SchemaError:
                raise
            except ConnectError:
                if time.monotonic() + wait_seconds >= deadline:
                    raise
            await asyncio.sleep(wait_seconds)
        self._task = asyncio.create_task(self._keep(), name=f"aioovs {self.name}")
        self._task.add_done_callback(self._task_ended)

    async def close(self) -> None:
        """Ends the connection, every wait and every subscriber. May be called again."""
        closed = DatabaseClosed(f"{self.name}: the Database was closed by its owner")
        self._ended = self._ended or closed
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self.session is not None:
            self.session.drop("closed by this side")
        if self._dead is not None:
            await self._dead.wait_closed()
        self._end(closed)

    def live(self) -> tuple[Session, Replica]:
        """The connection and its replica. Raises NotConnected or DatabaseClosed."""
        if self._ended is not None:
            raise self._ended
        if self.session is None:
            raise NotConnected(f"{self.name}: not connected: {self.problem}; nothing was sent")
        return self.session, self.binding.idl

    async def wait_connected(self, deadline_seconds: float) -> None:
        """Until connected. Raises NotConnected at the deadline, with the last reason; DatabaseClosed."""
        if self._task is None or self._ended is not None or self.session is not None:
            self.live()
            return
        future = asyncio.get_running_loop().create_future()
        self._connecting.add(future)
        try:
            async with asyncio.timeout(deadline_seconds):
                await future
        except TimeoutError:
            raise NotConnected(f"{self.name}: not connected within {deadline_seconds:g} s: {self.problem}") from None
        finally:
            self._connecting.discard(future)

    async def reply(self, future: asyncio.Future[Any]) -> Any:
        """Awaits a reply that comes by the Idl. Raises ConnectionLost if the connection goes first."""
        self._waiting.add(future)
        try:
            return await future
        finally:
            self._waiting.discard(future)

    async def applied(self, next_cfg: int) -> None:
        """Until ovs-vswitchd's cur_cfg has reached `next_cfg`. Raises ConnectionLost with committed=True."""
        if (self.binding.idl.switch_config("cur_cfg") or 0) >= next_cfg:
            return
        if self.session is None:  # lost between the reply and now
            raise ConnectionLost(f"{self.name}: {self.problem}; committed, but not seen applied", committed=True)
        future = asyncio.get_running_loop().create_future()
        self._applying[future] = next_cfg
        try:
            await future
        finally:
            self._applying.pop(future, None)

    # -- inside ----------------------------------------------------------------------------------------------

    async def _connect(self, deadline_seconds: float) -> None:
        """One attempt. Raises ConnectError or SchemaError, and leaves nothing open then."""
        session: Session | None = None
        try:
            async with asyncio.timeout(deadline_seconds):
                session = await self._remote.open(self._new_session, self._ssl)
                replica = await self._replicate(session)
            if session.lost_reason is not None:
                raise ConnectionLost("")
            self._swap_in(session, replica)
        except BaseException as error:
            if session is not None:
                session.drop("the attempt to connect failed")
                await session.wait_closed()
            if isinstance(error, TimeoutError):
                stage = "no answer from the server" if session else "no connection"
                error = ConnectError(f"{self.name}: {stage} within {deadline_seconds:.3g} s")
            elif isinstance(error, ConnectionLost) and session is not None:
                error = ConnectError(f"{self.name}: {session.lost_reason}")
            self.problem = str(error) or self.problem
            raise error from None

    def _new_session(self) -> Session:
        return Session(self.name, self._timing, self._session_lost)

    async def _replicate(self, session: Session) -> Replica:
        answer = await session.request("get_schema", [self._schema])
        if answer.type != ovs.jsonrpc.Message.T_REPLY or not isinstance(answer.result, dict):
            raise SchemaError(f"{self.name}: no database {self._schema!r} there ({answer.error}): check the remote")
        try:
            replica = Replica(session, answer.result, self._tables, self._notice)
        except (LookupError, TypeError, AttributeError, AssertionError) as error:
            raise SchemaError(f"{self.name}: the schema of {self._schema!r} is malformed: {error!r}") from error
        self._waiting.add(replica.synced)
        session.attach(lambda: self._step(replica))
        try:
            await replica.synced
        finally:
            self._waiting.discard(replica.synced)
        return replica

    def _step(self, replica: Replica) -> None:
        replica.step()
        if self._applying:
            current = replica.switch_config("cur_cfg") or 0
            for future, wanted in self._applying.items():
                if current >= wanted and not future.done():
                    future.set_result(None)

    def _swap_in(self, session: Session, replica: Replica) -> None:
        before, self.binding.replica = self.binding.replica, replica
        self.session = session
        self._lost.clear()
        _log.info("%s: connected", self.name)
        for future in self._connecting:
            if not future.done():
                future.set_result(None)
        if before is not None:
            old, new = ({table: idl.snapshot(table) for table in idl.tables} for idl in (before, replica))
            self.audience.tell(Resynced(), *differences(old, new))

    def _notice(self, event: str, row: Any, old: Any) -> None:
        if row._idl is not self.binding.replica:
            return  # of a replica not swapped in yet: its differences will be told as a whole
        table = row._table.name
        if not self.audience.wants(table):
            return
        kind = _KINDS[event]
        now = plain_columns(row)
        former = now if kind == "delete" else plain_columns(old) if old is not None else {}
        self.audience.tell(RowChange(table, row.uuid, kind, former, {} if kind == "delete" else now))

    def _session_lost(self, reason: str) -> None:
        for future in self._waiting:
            if not future.done():
                text = f"{self.name}: {reason}; the outcome is unknown: read the rows again once connected"
                future.set_exception(ConnectionLost(text))
        for future in self._applying:
            if not future.done():
                text = f"{self.name}: {reason}; committed, but not seen applied"
                future.set_exception(ConnectionLost(text, committed=True))
        if self.session is None:  # it never became the live one
            return
        self._dead, self.session = self.session, None
        self._lost.set()
        self.problem = reason
        if self._ended is None:
            _log.warning("%s: connection lost: %s", self.name, reason)
            self.audience.tell(Disconnected(reason))

    async def _keep(self) -> None:
        while True:
            await self._lost.wait()
            if self._dead is not None:
                await self._dead.wait_closed()
            wait_seconds = self._timing.reconnect_wait_seconds
            while self.session is None:
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(wait_seconds * 2, self._timing.reconnect_wait_seconds * MAX_WAIT_GROWTH)
                problem = self.problem
                try:
                    await self._connect(self._timing.connect_deadline_seconds)
                except ConnectError as error:
                    if str(error) != problem:
                        _log.warning("still not connected: %s", error)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.error("%s: the connection cannot be kept", self.name, exc_info=task.exception())
            self._end(DatabaseClosed(f"{self.name}: broken for good: {task.exception()!r}; open a new Database"))

    def _end(self, error: DatabaseClosed) -> None:
        self._ended = self._ended or error
        for future in (*self._waiting, *self._applying, *self._connecting):
            if not future.done():
                future.set_exception(self._ended)
        self.audience.end(self._ended)
