"""How agents talk to a keeper: JSON objects, one a line, over a unix socket that root alone may use.

A request holds `id` and `do`: `configure` (with the fields of `Settings`, and the `run` last heard of), `checkpoint`,
`promote` and `fence` (with `run` and `limit_seconds`). Its answer holds the same `id`, `problem`, empty if all is well,
and `sequence`, the checkpoint asked for. Lines without an id are events: `hello`, `state`, `checkpoint`, `ended`,
`problem`. Who attaches is told the state at once, with the runs that have ended before. Every line, queue and number of
clients has a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xenkeeper import VERSION
from xenkeeper.keeper import Keeper
from xenkeeper.settings import Settings, SettingsError
from xenkeeper.xl import Xl

LINE_MAX_BYTES = 16 << 10
CLIENTS_MAX = 4
UNREAD_MAX_BYTES = 256 << 10
UNANSWERED_MAX = 8
LIMIT_MAX_SECONDS = 600.0
_SOCKET_UMASK = 0o177

Log = Callable[[str], None]


class Control:
    """The keeper's face to agents.

    Args:
        boot: the name of this boot of the host.
        log: takes a line for a person.
    """

    def __init__(self, path: Path, xl: Xl, boot: str, log: Log) -> None:
        self._path, self._xl, self._boot, self._log = path, xl, boot, log
        self._keeper: Keeper | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._configuring = asyncio.Lock()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to listen. Raises OSError, also if another keeper listens there."""
        try:
            _, writer = await asyncio.open_unix_connection(self._path)
        except OSError:
            pass  # nobody does
        else:
            writer.close()
            raise OSError(errno.EADDRINUSE, "another keeper does")
        self._path.unlink(missing_ok=True)
        before = os.umask(_SOCKET_UMASK)
        try:
            self._server = await asyncio.start_unix_server(self._attend, self._path, limit=LINE_MAX_BYTES)
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Let everything go, in order: see `Keeper.close`."""
        if self._server is not None:
            self._server.close()
        if self._keeper is not None:
            await self._keeper.close()
        for client in tuple(self._clients):
            client.close()
        self._path.unlink(missing_ok=True)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks: set[asyncio.Task[None]] = set()
        try:
            if len(self._clients) >= CLIENTS_MAX:
                return
            self._clients.add(writer)
            self._send(writer, {"event": "hello", "version": VERSION, "boot": self._boot})
            if self._keeper is not None:
                self._send(writer, self._keeper.state())
            while line := await reader.readline():
                if len(tasks) >= UNANSWERED_MAX:
                    return
                task = asyncio.create_task(self._answer(writer, line))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except (OSError, ValueError) as error:
            self._log(f"an agent is let go: {error}")
        finally:
            self._clients.discard(writer)
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, line: bytes) -> None:
        try:
            request = json.loads(line)
            number, verb = request["id"], request["do"]
        except (ValueError, KeyError, TypeError):
            self._send(writer, {"event": "problem", "kind": "bad_request", "text": f"not a request: {line[:80]!r}"})
            return
        problem, sequence = await self._do(str(verb), request)
        self._send(writer, {"id": number, "problem": problem, "sequence": sequence})

    async def _do(self, verb: str, request: dict[str, Any]) -> tuple[str, int]:
        if verb == "configure":
            return await self._configure(request), 0
        if self._keeper is None:
            return "this keeper was not configured yet", 0
        run, limit = request.get("run"), request.get("limit_seconds")
        if not isinstance(run, str) or not isinstance(limit, int | float) or not 0 <= limit <= LIMIT_MAX_SECONDS:
            return f"{verb} needs run and limit_seconds", 0
        if verb == "checkpoint":
            return await self._keeper.checkpoint(run, limit)
        if verb == "promote":
            return await self._keeper.promote(run, limit), 0
        if verb == "fence":
            return await self._keeper.fence(run, limit), 0
        return f"there is no {verb!r}", 0

    async def _configure(self, request: dict[str, Any]) -> str:
        try:
            settings = Settings.read(request)
        except SettingsError as error:
            return str(error)
        async with self._configuring:
            keeper = self._keeper
            if keeper is None:
                keeper = Keeper(self._xl, settings, self._boot, self._path.with_suffix(".out"), self._tell)
                try:
                    await keeper.start()
                except OSError as error:
                    return f"nobody can listen at {settings.listen}: {error.strerror}"
                self._keeper = keeper
                self._log(f"keeps {settings.guest}: {settings}")
            elif (keeper.settings.guest, keeper.settings.listen) != (settings.guest, settings.listen):
                return f"this keeper keeps {keeper.settings.guest} at {keeper.settings.listen}; restart it for another"
            else:
                keeper.settings = settings  # for the next stream
            keeper.expect(str(request.get("run", "")))
        return ""

    def _tell(self, event: dict[str, Any]) -> None:
        if event["event"] == "problem":
            self._log(f"{event['kind']}: {event['text']}")
        for client in tuple(self._clients):
            self._send(client, event)

    def _send(self, writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
        if writer.is_closing():
            return
        if writer.transport.get_write_buffer_size() > UNREAD_MAX_BYTES:
            self._log("an agent that does not read is let go")
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            writer.write(json.dumps(message).encode() + b"\n")
