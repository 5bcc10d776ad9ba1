"""A proxy for one unix socket that a test can hold (bytes wait), cut (as a crash does) and spoil (garbage)."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path


class Proxy:
    """`remote` leads through it to the server at `target`."""

    def __init__(self, path: Path, target: Path) -> None:
        self.remote = f"unix:{path}"
        self._path = path
        self._target = target
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self.seen = b""

    async def start(self) -> None:
        """Listens."""
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    def hold(self) -> None:
        """From now on nothing reaches the server."""
        self._flowing.clear()

    def release(self) -> None:
        """What waited goes on."""
        self._flowing.set()

    def cut(self) -> None:
        """All connections break."""
        for writer in self._clients:
            writer.transport.abort()

    def spoil(self, garbage: bytes) -> None:
        """The clients receive garbage."""
        for writer in self._clients:
            writer.write(garbage)

    async def stop(self) -> None:
        """Closes all."""
        self._server.close()
        self.cut()
        self.release()
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._clients.add(writer)
        try:
            with contextlib.suppress(OSError):
                server_reader, server_writer = await asyncio.open_unix_connection(self._target)
                try:
                    back = asyncio.create_task(self._pipe(server_reader, writer, held=False))
                    self._tasks.add(back)
                    await self._pipe(reader, server_writer, held=True)
                finally:
                    server_writer.transport.abort()
        finally:
            self._clients.discard(writer)
            writer.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, held: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if held:
                    self.seen += data
                    await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
