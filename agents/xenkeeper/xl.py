"""Running xl. No xl is ever sent a signal: one that is killed amid a checkpoint leaves its guest suspended for good."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from xenkeeper.domains import Domain, ListError, parse, writable_disks
from xenkeeper.wording import Line, Said, Transcript

LINE_MAX_BYTES = 16 << 10
OUTPUT_MAX_BYTES = 1 << 20
UNFINISHED_MAX = 8
# Lines of one xl that are logged because they are no known step of a checkpoint.
LOGGED_MAX = 100
_STEPS = frozenset({Said.SUSPENDED, Said.SAVED, Said.BUFFERED, Said.COMMITTED, Said.NOISE})


class Ledger:
    """The xl that run on, by process id and start (proc(5), field 22), in a file that outlives a keeper that was
    killed: two `xl remus` on one guest would suspend it between each other's checkpoints."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, pid: int) -> None:
        """Write one down, and forget those that have ended."""
        known = [*self.running(), *self._entry(pid)]
        self._path.write_text("".join(f"{entry}\n" for entry in known), encoding="ascii")

    def running(self) -> list[str]:
        """Those that still run."""
        try:
            entries = self._path.read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        return [entry for entry in entries if entry in self._entry(entry.partition(" ")[0])]

    @staticmethod
    def _entry(pid: int | str) -> list[str]:
        with contextlib.suppress(OSError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] not in (b"Z", b"X"):
                return [f"{pid} {int(fields[19])}"]
        return []


class XlError(Exception):
    """xl did not do as told; the text says what it said."""


class Xl:
    """The short commands of xl: they answer and end.

    Args:
        program: the xl to run.
        ledger: where those that run on are written down, see `Ledger`.
        log: takes a line for a person.
    """

    def __init__(self, program: str, ledger: Ledger, log: Callable[[str], None]) -> None:
        self.program = program
        self.ledger = ledger
        self.log = log
        self._unfinished: set[asyncio.Task[str]] = set()

    async def domains(self, limit_seconds: float) -> tuple[Domain, ...]:
        """Every domain of the host. Raises XlError."""
        try:
            return parse(await self._run(limit_seconds, "list"))
        except ListError as error:
            raise XlError(str(error)) from None

    async def writable_disks(self, domid: int, limit_seconds: float) -> list[str]:
        """Disks of a domain that it may write. Raises XlError."""
        try:
            return writable_disks(await self._run(limit_seconds, "list", "-l", str(domid)))
        except ListError as error:
            raise XlError(str(error)) from None

    async def destroy(self, domid: int, limit_seconds: float) -> None:
        """End a domain at once; that it is gone is for `list` to say. Raises XlError."""
        await self._run(limit_seconds, "destroy", str(domid))

    async def rename(self, domid: int, name: str, limit_seconds: float) -> None:
        """Give a domain a name. Raises XlError."""
        await self._run(limit_seconds, "rename", str(domid), name)

    async def _run(self, limit_seconds: float, *arguments: str) -> str:
        if len(self._unfinished) >= UNFINISHED_MAX:
            raise XlError(f"{len(self._unfinished)} xl commands have not ended: Xen's toolstack hangs")
        task = asyncio.create_task(self._finish(arguments))
        self._unfinished.add(task)
        task.add_done_callback(self._finished)
        await asyncio.wait({task}, timeout=max(0.0, limit_seconds))
        if not task.done():
            raise XlError(f"xl {arguments[0]} did not end within {limit_seconds:.3g} s")
        return task.result()

    def _finished(self, task: asyncio.Task[str]) -> None:
        self._unfinished.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has heard it

    async def _finish(self, arguments: Sequence[str]) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                self.program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise XlError(f"{self.program} cannot be started: {error.strerror}") from None
        output, complaint = await process.communicate()
        if process.returncode:
            lines = complaint.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise XlError(f"xl {arguments[0]} ended with status {process.returncode}: {lines[-1][:200]}")
        return output[:OUTPUT_MAX_BYTES].decode(errors="replace")


class TalkingXl:
    """An xl that runs on (`remus`, `migrate-receive`) and says on standard error what happens.

    Its standard error never blocks: when we do not read, lines are lost instead of a guest waiting amid a checkpoint.
    It does not die of a pipe that we have left (SIGPIPE stays ignored).
    """

    def __init__(self, on_line: Callable[[Line], None]) -> None:
        self.transcript = Transcript()
        self.status: int | None = None
        self.ended = asyncio.Event()
        self.process: asyncio.subprocess.Process
        self._on_line = on_line
        self._logged = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, xl: Xl, *arguments: str, pipes: bool) -> None:
        """Start it, with its standard input and output in our hands if `pipes`. Raises XlError."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writing, False)  # of the open file, so it holds for the child, too
        end = asyncio.subprocess.PIPE if pipes else asyncio.subprocess.DEVNULL
        try:
            self.process = await asyncio.create_subprocess_exec(
                xl.program,
                *arguments,
                stdin=end,
                stdout=end,
                stderr=writing,
                restore_signals=False,
                start_new_session=True,
            )
        except OSError as error:
            os.close(reading)
            raise XlError(f"{xl.program} cannot be started: {error.strerror}") from None
        finally:
            os.close(writing)
        xl.ledger.note(self.process.pid)
        name = f"xl {arguments[0]}"
        reader = asyncio.StreamReader(LINE_MAX_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        pipe = os.fdopen(reading, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
        listening = asyncio.create_task(self._listen(reader, lambda text: xl.log(f"{name}: {text}")))
        self._tasks = [listening, asyncio.create_task(self._wait(listening, transport))]

    async def _listen(self, reader: asyncio.StreamReader, log: Callable[[str], None]) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # longer than any that means something
                continue
            if not line:
                return
            heard = self.transcript.take(line.decode(errors="replace").strip("\r\n"))
            if heard.said not in _STEPS and self._logged < LOGGED_MAX:
                self._logged += 1
                log(heard.text)
            self._on_line(heard)

    async def _wait(self, listening: asyncio.Task[None], transport: asyncio.BaseTransport) -> None:
        self.status = await self.process.wait()
        # What it said last is there already; a child of it may keep the pipe open for ever.
        await asyncio.wait({listening}, timeout=0.2)
        listening.cancel()
        transport.close()
        self.ended.set()
