"""One connection to the keeper of a guest (`xenkeeper`), which somebody else started. Nothing waits longer than told.

It carries requests and answers, and hands events on as they come. Knows no event's meaning.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from tunnelswitch.errors import DriverError

VERSION = 1
MESSAGE_MAX_BYTES = 64 << 10
UNANSWERED_MAX = 8


class KeeperMessage(Struct, frozen=True):
    """What a keeper says. `event` is hello, state, checkpoint, ended or problem; an answer has an `id` instead."""

    event: str = ""
    id: int = 0
    problem: str = ""
    version: int = 0
    boot: str = ""
    run: str = ""
    role: str = ""
    protection: str = ""
    in_sync: bool = False
    sequence: int = 0
    obstacle: str = ""
    ended: tuple[str, ...] = ()
    known: bool = False
    pause_seconds: float = 0.0
    bytes: int = 0
    kind: str = ""
    text: str = ""


class LostError(DriverError):
    """There is no connection any more."""


class KeeperLink:
    """A connection to the keeper on `path`.

    Args:
        on_event: called with every event, from the event loop, at once.
    """

    def __init__(self, path: Path, on_event: Callable[[KeeperMessage], None]) -> None:
        self.lost = asyncio.Event()
        self._path, self._on_event = path, on_event
        self._decoder = msgspec.json.Decoder(KeeperMessage)
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[KeeperMessage]] = {}
        self._numbers = itertools.count(1)
        self._why = ""

    async def connect(self, limit_seconds: float) -> str:
        """Reach the keeper; returns the name of its host's boot.

        Raises:
            DriverError: nobody listens there, or it is no keeper of ours.
        """
        try:
            async with asyncio.timeout(limit_seconds):
                reader, self._writer = await asyncio.open_unix_connection(self._path, limit=MESSAGE_MAX_BYTES)
                hello = self._decoder.decode(await reader.readline())
        except TimeoutError:
            raise DriverError(f"the keeper on {self._path} does not greet", "it hangs: restart it") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise DriverError(
                f"no keeper listens on {self._path}: {reason}", "start it in dom0 (docs/xen.md)"
            ) from None
        except (msgspec.MsgspecError, ValueError):
            raise DriverError(f"whoever listens on {self._path} is no keeper") from None
        if hello.event != "hello" or hello.version != VERSION or not hello.boot:
            raise DriverError(
                f"the keeper on {self._path} speaks version {hello.version}, not {VERSION}",
                "run the keeper and the agent of one release",
            )
        self._reading = asyncio.create_task(self._read(reader), name=f"keeper:{self._path.name}")
        return hello.boot

    async def ask(self, verb: str, wait_seconds: float, **fields: object) -> int:
        """Have the keeper do something, and wait until it is done; returns the checkpoint asked for, or 0.

        Raises:
            LostError: the connection is gone.
            DriverError: it was not done, for the reason given, or there was no answer in time.
        """
        if self._writer is None or self.lost.is_set():
            raise LostError(f"not attached to the keeper on {self._path}", self._why)
        if len(self._answers) >= UNANSWERED_MAX:
            raise DriverError(f"the keeper still owes {len(self._answers)} answers", "it hangs: restart it")
        number = next(self._numbers)
        answer: asyncio.Future[KeeperMessage] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        request: Mapping[str, object] = {"id": number, "do": verb, **fields}
        self._writer.write(msgspec.json.encode(request) + b"\n")
        try:
            await asyncio.wait({answer}, timeout=max(0.0, wait_seconds))
        finally:
            self._answers.pop(number, None)
        if not answer.done():
            raise DriverError(f"the keeper did not answer {verb} within {wait_seconds:.3g} s")
        if self.lost.is_set() and answer.cancelled():
            raise LostError(f"the connection to the keeper was lost in {verb}", self._why)
        said = answer.result()
        if said.problem:
            raise DriverError(said.problem)
        return said.sequence

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                message = self._decoder.decode(line)
                if message.event:
                    self._on_event(message)
                elif (answer := self._answers.get(message.id)) is not None and not answer.done():
                    answer.set_result(message)
            self._why = "the keeper closed it"
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            self._why = f"it broke: {error}"
        finally:
            self.lost.set()
            for answer in self._answers.values():
                answer.cancel()

    async def close(self) -> None:
        """Let go of the keeper; it goes on."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        if self._writer is not None:
            self._writer.transport.abort()
