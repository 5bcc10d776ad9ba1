"""Checkpoints of the peer's guest: `xl migrate-receive`, whose standard input is ours.

Xen resumes the copy when its stream ends. So when the peer's connection ends, breaks or falls silent, the stream to xl
is held open and the copy waits as it is, until it is promoted (the stream is closed) or dropped (the copy is destroyed
first). The number of a commit is ours: how often this xl said that all records of a checkpoint are processed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from xenkeeper.settings import Settings
from xenkeeper.wording import BANNER, End, Line, Said, receive_end
from xenkeeper.xl import TalkingXl, Xl, XlError

CHUNK_BYTES = 512 << 10
END_SECONDS = 20.0


class Copy:
    """One copy, from the peer's connection to its end here, whatever that is.

    Args:
        on_commit: called with the number of every checkpoint and its bytes.
        on_change: it is not what it was; look.
        on_problem: called with a short kind and a line for a person.
    """

    def __init__(
        self,
        xl: Xl,
        settings: Settings,
        on_commit: Callable[[int, int], None],
        on_change: Callable[[], None],
        on_problem: Callable[[str, str], None],
    ) -> None:
        self._xl, self._settings = xl, settings
        self._on_commit, self._on_change, self._on_problem = on_commit, on_change, on_problem
        self._talking = TalkingXl(self._heard)
        self._ended = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._bytes = 0
        self.commits = 0
        self.served = False
        self.connected = False
        self.promoting = False
        self.dropping = False
        self.taken_over = False

    @property
    def alive(self) -> bool:
        """Does xl still hold it?"""
        return not self._ended.is_set()

    @property
    def failover_domid(self) -> int:
        """The domain that xl says it has resumed; -1 if none."""
        return self._talking.transcript.domid

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take checkpoints in until the peer's connection ends. Raises XlError if xl cannot be started."""
        self._writer = writer
        try:
            await self._talking.start(self._xl, "migrate-receive", "-r", pipes=True)
        except XlError:
            self._ended.set()
            raise
        ended = asyncio.create_task(self._attend_end())
        self.served = self.connected = True
        try:
            reason = await self._greet() or await self._pump(reader)
        finally:
            self.connected = False
            self._writer = None
            writer.close()
        if not self.promoting and not self.dropping and self.alive:
            self._on_problem("stream_ended", f"after {self.commits} checkpoints: {reason}")
            if not self.commits:
                self.release()  # there is nothing to hold
        self._on_change()
        await ended

    async def _greet(self) -> str:
        """Have xl's greeting reach the peer. Returns what went wrong."""
        output = self._talking.process.stdout
        assert output is not None
        assert self._writer is not None
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                greeting = await output.readexactly(len(BANNER))
        except (TimeoutError, asyncio.IncompleteReadError):
            return "xl migrate-receive did not greet"
        if greeting != BANNER:
            return f"xl migrate-receive greets with {greeting!r}"
        self._writer.write(greeting)
        return ""

    async def _pump(self, reader: asyncio.StreamReader) -> str:
        """From the peer to xl. Returns why it ended."""
        stream = self._talking.process.stdin
        assert stream is not None
        silence = self._settings.silence_seconds
        try:
            while True:
                try:
                    async with asyncio.timeout(silence):
                        chunk = await reader.read(CHUNK_BYTES)
                except TimeoutError:
                    return f"the peer was silent for {silence:g} s"
                if self.promoting or self.dropping:
                    return "not wanted any more"
                if not chunk:
                    return "the peer closed it"
                self._bytes += len(chunk)
                stream.write(chunk)
                await stream.drain()
        except OSError as error:
            return f"it broke: {error.strerror or error}"

    def _heard(self, line: Line) -> None:
        if line.said is Said.COMMITTED:
            self.commits += 1
            size_bytes, self._bytes = self._bytes, 0
            if self._writer is not None and not self._writer.is_closing():
                self._writer.write(b"commit %d\n" % self.commits)
            if not self.promoting and not self.dropping:
                self._on_commit(self.commits, size_bytes)
        elif line.said is Said.FAILOVER:
            self._on_change()
        elif line.said in (Said.RENAME_FAILED, Said.UNPAUSE_FAILED):
            self._on_problem("xl_failed", line.text)

    async def _attend_end(self) -> None:
        await self._talking.ended.wait()
        status, transcript = self._talking.status, self._talking.transcript
        assert status is not None
        end = receive_end(status, transcript)
        self.taken_over = end is End.TOOK_OVER
        if end is End.TOOK_OVER and not self.promoting:
            self._on_problem("unasked_failover", "the copy was resumed without a promotion: its stream ended in xl")
        elif end is not End.TOOK_OVER and not self.dropping:
            self._on_problem("receive_failed", f"{end.value}: {transcript.complaint or f'status {status}'}")
        if self._writer is not None:
            self._writer.close()
        self._ended.set()
        self._on_change()

    async def promote(self, limit_seconds: float) -> str:
        """End the stream: xl resumes the copy from its last checkpoint. Returns what went wrong; empty when it runs.

        A copy that is late may still take over afterwards.
        """
        self.promoting = True
        self.release()
        await self._wait_ended(limit_seconds)
        if self.alive:
            return f"xl has not resumed the copy within {limit_seconds:.3g} s"
        if not self.taken_over:
            transcript = self._talking.transcript
            return f"the copy was not resumed: {transcript.complaint or f'xl ended with status {self._talking.status}'}"
        return ""

    async def drop(self, destroy: Callable[[], Awaitable[None]]) -> None:
        """Give the copy up: `destroy` ends its domain, and only then does the stream end. Raises XlError."""
        self.dropping = True
        try:
            if self.alive:
                await destroy()
        except XlError:
            self.dropping = False
            raise
        self.release()
        await self._wait_ended(END_SECONDS)
        if not self._ended.is_set():
            raise XlError("xl migrate-receive has not ended with its stream; look with ps, and xl list")

    def release(self) -> None:
        """Close the stream to xl, and the peer's connection."""
        if self._writer is not None:
            self._writer.transport.abort()
        stream = self._talking.process.stdin
        if stream is not None:
            stream.close()

    async def _wait_ended(self, limit_seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, limit_seconds)):
                await self._ended.wait()
