"""Checkpoints of the guest that runs here: `xl remus`, its transport, and the watch over both.

The transport is a socat that xl starts; its other end is ours, so that we stop replication by closing it: `xl remus`
then lets the guest go on. Remus reads no acknowledgement. What comes back on the peer's connection after xl's greeting
are the peer keeper's words `commit NUMBER`, and only those make a checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xenkeeper.settings import Settings, address
from xenkeeper.wording import BANNER, End, Line, Said, remus_end
from xenkeeper.xl import TalkingXl, Xl, XlError

CHUNK_BYTES = 512 << 10
END_SECONDS = 90.0
_WORD_MAX_BYTES = 64
_WATCHES_PER_STALL = 8
# Xen says nothing of the first checkpoint that it takes in: commit N is the checkpoint that was begun as number N + 1.
_UNSAID = 1


@dataclass(frozen=True, slots=True)
class Sent:
    """A checkpoint that the peer has committed: its number there, how long it stopped the guest, what it weighed."""

    sequence: int
    pause_seconds: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt at protection ended. `kind` is empty where nothing went wrong; `hung`: it held the guest."""

    kind: str
    problem: str
    hung: bool = False


class Sender:
    """One attempt to protect the guest, from the greeting to the end of `xl remus`.

    Args:
        socket: where the transport reaches us.
        on_commit: called with every checkpoint that the peer has committed.
        on_change: `copying` or `protected` is not what it was.
    """

    def __init__(
        self,
        xl: Xl,
        settings: Settings,
        socket: Path,
        on_commit: Callable[[Sent], None],
        on_change: Callable[[], None],
    ) -> None:
        self._xl, self._settings, self._socket = xl, settings, socket
        self._on_commit, self._on_change = on_commit, on_change
        self.copying = False
        self.protected = False
        self._talking: TalkingXl | None = None
        self._cut = asyncio.Event()
        self._reason = ""
        self._hung = False
        self._moved_at = self._committed_at = self._began_at = 0.0
        self._suspended_at: float | None = None
        self._pause_seconds = 0.0
        self._bytes = 0
        self._begun = 0
        self._waiting: list[tuple[int, asyncio.Future[int]]] = []

    async def checkpoint(self) -> int:
        """Wait until the peer holds a checkpoint that was begun after now; returns its number. `xl remus` cannot be
        told to begin sooner. Raises XlError if replication ends before."""
        if not self.protected:
            raise XlError("the guest has no standby in sync")
        held: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._begun + 1 - _UNSAID, held))
        return await held

    def cut(self, reason: str) -> None:
        """Stop replication; the guest goes on alone. Returns at once."""
        if not self._cut.is_set():
            self._reason = reason
            self._cut.set()
            self._set(copying=False, protected=False)

    async def protect(self, domid: int) -> Attempt:
        """Try, and stay until replication has ended. A peer that is not there costs the guest nothing."""
        limit = self._settings.timeout_seconds
        host, port = address(self._settings.peer)
        try:
            async with asyncio.timeout(limit):
                reader, writer = await asyncio.open_connection(host, port, limit=CHUNK_BYTES)
        except (OSError, TimeoutError) as error:
            return Attempt("sync_failed", f"no keeper at {self._settings.peer}: {error or 'no answer'}")
        try:
            async with asyncio.timeout(limit):
                greeting = await reader.readline()
            if greeting != BANNER:
                word = "does not want the guest" if not greeting else f"says {greeting[:60]!r}"
                return Attempt("sync_failed", f"the keeper at {self._settings.peer} {word}")
            return await self._replicate(domid, reader, writer)
        except TimeoutError:
            return Attempt("sync_failed", f"xl at {self._settings.peer} did not greet within {limit:g} s")
        except (OSError, ValueError) as error:
            return Attempt("sync_failed", f"the connection to {self._settings.peer} failed: {error}")
        finally:
            self._set(copying=False, protected=False)
            if self._cut.is_set():
                writer.transport.abort()
            writer.close()

    async def _replicate(self, domid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Attempt:
        self._began_at = self._moved_at = asyncio.get_running_loop().time()
        plugged: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        plugged = asyncio.get_running_loop().create_future()

        def plug(inward: asyncio.StreamReader, outward: asyncio.StreamWriter) -> None:
            if plugged.done():
                outward.close()
            else:
                plugged.set_result((inward, outward))

        self._socket.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(plug, self._socket, limit=CHUNK_BYTES)
        self._socket.chmod(0o600)
        self._talking = talking = TalkingXl(self._heard)
        rune = f"exec socat -t 0 -b {CHUNK_BYTES} - UNIX-CONNECT:{shlex.quote(str(self._socket))}"
        command = ("remus", "-F", "-n", "-d", "-i", str(self._settings.interval_ms), "-s", "", str(domid), rune)
        tasks: list[asyncio.Task[None]] = []
        try:
            await talking.start(self._xl, *command, pipes=False)
            self._set(copying=True, protected=False)
            tasks = [
                asyncio.create_task(work)
                for work in (self._pump(plugged, writer), self._take_words(reader), self._watch())
            ]
            ends = [asyncio.create_task(event.wait()) for event in (talking.ended, self._cut)]
            tasks += [asyncio.create_task(self._first(ends))]
            await tasks[-1]
        except XlError as error:
            return Attempt("sync_failed", str(error))
        finally:
            for task in tasks:
                task.cancel()
            server.close()
            if plugged.done():
                plugged.result()[1].transport.abort()
            self._set(copying=False, protected=False)
        return await self._conclude(talking)

    async def _first(self, tasks: Sequence[asyncio.Task[bool]]) -> None:
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _conclude(self, talking: TalkingXl) -> Attempt:
        """The transport is closed: xl sees it at its next checkpoint at the latest, and lets the guest go on."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await talking.ended.wait()
        if talking.status is None:
            problem = f"xl remus has not ended {END_SECONDS:g} s after its transport; look with xl list"
            return Attempt("xl_failed", problem, hung=True)
        end = remus_end(talking.status, talking.transcript)
        if end is End.DESTROYED:
            return Attempt("", end.value)
        said = self._reason or talking.transcript.complaint or f"status {talking.status}"
        kind = {End.GOES_ON: "peer_lost", End.NOT_BEGUN: "sync_failed"}.get(end, "xl_failed")
        return Attempt(kind, f"{end.value}: {said}", self._hung)

    async def _pump(
        self,
        plugged: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
        writer: asyncio.StreamWriter,
    ) -> None:
        """From the transport to the peer, no faster than the peer takes it."""
        try:
            inward, outward = await plugged
            outward.write(BANNER)
            while chunk := await inward.read(CHUNK_BYTES):
                writer.write(chunk)
                await writer.drain()
                self._bytes += len(chunk)
                self._moved_at = asyncio.get_running_loop().time()
        except OSError as error:
            self.cut(f"the connection to {self._settings.peer} broke: {error.strerror or error}")

    async def _take_words(self, reader: asyncio.StreamReader) -> None:
        try:
            while word := await reader.readline():
                name, _, number = word.decode("ascii", "replace").strip().partition(" ")
                if len(word) > _WORD_MAX_BYTES or name != "commit" or not number.isdigit():
                    self.cut(f"{self._settings.peer} says {word[:60]!r} amid checkpoints")
                    return
                self._commit(int(number))
            self.cut(f"{self._settings.peer} closed the connection")
        except (OSError, ValueError) as error:
            self.cut(f"the connection to {self._settings.peer} broke: {error}")

    def _commit(self, sequence: int) -> None:
        if self._cut.is_set():
            return
        self._committed_at = asyncio.get_running_loop().time()
        size_bytes, self._bytes = self._bytes, 0
        self._set(copying=False, protected=True)
        self._on_commit(Sent(sequence, self._pause_seconds, size_bytes))
        for wanted, held in self._waiting:
            if sequence >= wanted and not held.done():
                held.set_result(sequence)
        self._waiting = [(wanted, held) for wanted, held in self._waiting if not held.done()]

    def _heard(self, line: Line) -> None:
        now = asyncio.get_running_loop().time()
        self._moved_at = now
        if line.said is Said.SUSPENDED:
            self._begun += 1
            self._suspended_at = now
        elif line.said is Said.SAVED and self._suspended_at is not None:
            self._pause_seconds, self._suspended_at = now - self._suspended_at, None

    async def _watch(self) -> None:
        """Nobody else would free a guest whose standby no longer speaks: it stays suspended with the stream."""
        settings, now = self._settings, asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(settings.stall_seconds / _WATCHES_PER_STALL)
            if self.protected:
                allowed = settings.interval_ms / 1000 + settings.stall_seconds
                if now() - self._committed_at > allowed:
                    self._hung = True
                    self.cut(f"no checkpoint was committed for {allowed:g} s")
            elif now() - self._began_at > settings.sync_seconds:
                self.cut(f"no first checkpoint within {settings.sync_seconds:g} s")
            elif now() - self._moved_at > settings.timeout_seconds:  # meanwhile the peer's Xen makes the domain
                self._hung = True
                self.cut(f"nothing moved for {settings.timeout_seconds:g} s")

    def _set(self, *, copying: bool, protected: bool) -> None:
        if (copying, protected) != (self.copying, self.protected):
            self.copying, self.protected = copying, protected
            if not protected:
                for _, held in self._waiting:
                    if not held.done():
                        held.set_exception(XlError("replication ended"))
                self._waiting = []
            self._on_change()
