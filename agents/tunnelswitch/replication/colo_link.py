"""One QMP connection to a QEMU that somebody else started. Nothing here waits longer than it was told to.

A QEMU that hangs is left with its unanswered command; only so many of those may be open. Whose process it is follows
from the socket itself (SO_PEERCRED, unix(7)). Knows no command's meaning.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError
from qemu.qmp.events import EventListener

from tunnelswitch.errors import DriverError
from tunnelswitch.replication.colo_qmp import Command

UNANSWERED_MAX = 4
CLOSE_SECONDS = 0.5
_READ_MAX_BYTES = 1 << 20
_CREDENTIALS = struct.Struct("3i")

# It reports on standard error what we report ourselves; this package's logs go through structlog.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)


class RefusedError(DriverError):
    """QEMU answered with an error."""


class LostError(DriverError):
    """There is no connection any more."""


class QmpLink:
    """A connection to the monitor at `path`.

    Args:
        on_event: called with every event of QEMU, from the event loop, at once.
    """

    def __init__(self, path: Path, on_event: Callable[[Mapping[str, Any]], None]) -> None:
        self._path = path
        self._client = QMPClient("qemu", _READ_MAX_BYTES)
        self._socket: socket.socket | None = None
        self._unanswered: set[asyncio.Task[object]] = set()

        def take(event: Mapping[str, Any]) -> bool:
            on_event(event)
            return False  # taken: nothing is queued

        self._client.register_listener(EventListener(event_filter=take))

    def connect(self) -> int:
        """Reach the socket; returns the process id of the QEMU that listens on it.

        Raises:
            DriverError: nobody listens there.
        """
        reached = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            reached.connect(str(self._path))
            credentials = reached.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError as error:
            reached.close()
            raise DriverError(f"no QEMU listens on {self._path}: {error.strerror}") from None
        self._socket = reached
        pid: int = _CREDENTIALS.unpack(credentials)[0]
        return pid

    async def greet(self, limit_seconds: float) -> None:
        """Begin to talk; `connect` came before.

        Raises:
            DriverError: no greeting in time, or not one of QMP.
        """
        assert self._socket is not None
        reached, self._socket = self._socket, None
        try:
            async with asyncio.timeout(limit_seconds):
                await self._client.connect(reached)
        except TimeoutError:
            reached.close()
            raise DriverError(
                f"QEMU on {self._path} does not greet", "it hangs, or somebody else uses this monitor"
            ) from None
        except (QMPError, OSError, EOFError) as error:
            reached.close()
            raise DriverError(f"{self._path} does not speak QMP: {error}") from None

    @property
    def hung(self) -> bool:
        """Does QEMU owe an answer that is overdue?"""
        return bool(self._unanswered)

    async def ask(self, command: Command, limit_seconds: float) -> Any:
        """Have QEMU carry out a command; returns its answer.

        Raises:
            RefusedError: QEMU says no.
            LostError: the connection is gone.
            DriverError: no answer in time.
        """
        if len(self._unanswered) >= UNANSWERED_MAX * (2 if command.oob else 1):
            raise DriverError(f"QEMU still owes {len(self._unanswered)} answers")
        task = asyncio.ensure_future(
            self._client.execute(command.name, dict(command.arguments) or None, oob=command.oob)
        )
        try:
            await asyncio.wait({task}, timeout=max(0.0, limit_seconds))
        finally:
            if not task.done():
                self._unanswered.add(task)
                task.add_done_callback(self._answered)
        if not task.done():
            raise DriverError(f"QEMU did not answer {command.name} within {limit_seconds:.3g} s")
        try:
            return task.result()
        except ExecuteError as error:
            raise RefusedError(f"QEMU refuses {command.name}: {error}") from None
        except (QMPError, OSError, EOFError, asyncio.CancelledError) as error:
            raise LostError(f"the connection to QEMU was lost in {command.name}: {error}") from None

    def _answered(self, task: asyncio.Task[object]) -> None:
        self._unanswered.discard(task)
        if not task.cancelled():
            task.exception()  # of no interest any more

    async def close(self) -> None:
        """Let go of QEMU; it runs on."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        for task in tuple(self._unanswered):
            task.cancel()
        with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._client.disconnect()
