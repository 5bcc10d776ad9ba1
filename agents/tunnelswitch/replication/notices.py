"""What the service tells us by itself: JSON datagrams on a unix socket, one notice each.

Whoever may write to the socket (mode 0660) is believed about checkpoints, but never about the end of a process.
Everything is bounded: size, number per wake-up, number per second; the rest is counted and dropped.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from tunnelswitch.errors import DriverError

NOTICE_MAX_BYTES = 4096
PER_WAKE_MAX = 64
PER_SECOND_MAX = 4000
_SOCKET_UMASK = 0o117

RunName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.:-]{1,64}\Z")]
Role = Literal["active", "standby"]
Sequence = Annotated[int, Meta(ge=0, le=2**53)]


class CheckpointNotice(Struct, frozen=True, tag_field="kind", tag="checkpoint"):
    """A checkpoint is committed: the other copy holds it (active), or we hold it (standby)."""

    run: RunName
    role: Role
    sequence: Sequence
    pause_seconds: Annotated[float, Meta(ge=0, le=3600)]
    bytes: Sequence


class PeerNotice(Struct, frozen=True, tag_field="kind", tag="peer"):
    """The checkpoint stream came up or went away."""

    run: RunName
    connected: bool


class RoleNotice(Struct, frozen=True, tag_field="kind", tag="role"):
    """The service says what it is now."""

    run: RunName
    role: Role
    in_sync: bool


Notice = CheckpointNotice | PeerNotice | RoleNotice


class NoticeSocket:
    """Receives notices between `open` and `close`.

    Args:
        path: where the service sends to.
        on_notice: called from the event loop for each good notice.
        count: called with notice_invalid, notice_too_large or notice_flood for each bad one.
    """

    def __init__(self, path: Path, on_notice: Callable[[Notice], None], count: Callable[[str], None]) -> None:
        self._path = path
        self._on_notice = on_notice
        self._count = count
        self._decoder: msgspec.json.Decoder[Notice] = msgspec.json.Decoder(Notice)
        self._socket: socket.socket | None = None
        self._second = 0
        self._taken = 0

    def open(self) -> None:
        """Make the socket and listen.

        Raises:
            DriverError: the path is taken by something else, or cannot be made.
        """
        self._loop = asyncio.get_running_loop()
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._remove_stale()
            umask = os.umask(_SOCKET_UMASK)
            try:
                receiver.bind(str(self._path))
            finally:
                os.umask(umask)
        except OSError as error:
            receiver.close()
            reason = error.strerror or str(error)
            raise DriverError(
                f"notify_socket {self._path} cannot be made: {reason}", "give a path in a directory that we may write"
            ) from None
        except DriverError:
            receiver.close()
            raise
        self._socket = receiver
        self._loop.add_reader(receiver.fileno(), self._read, receiver)

    def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            self._path.unlink(missing_ok=True)

    def _remove_stale(self) -> None:
        """Remove what an agent that died left here; nothing else."""
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise DriverError(f"notify_socket {self._path} is taken by another file", "remove it or name another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(str(self._path))
            except ConnectionRefusedError:
                self._path.unlink()
                return
        raise DriverError(f"notify_socket {self._path} is in use", "stop the other agent of this site")

    def _read(self, receiver: socket.socket) -> None:
        for _ in range(PER_WAKE_MAX):
            try:
                data = receiver.recv(NOTICE_MAX_BYTES + 1)
            except (BlockingIOError, InterruptedError):
                return
            if not self._has_budget():
                self._count("notice_flood")
            elif len(data) > NOTICE_MAX_BYTES:
                self._count("notice_too_large")
            else:
                self._take(data)
            if self._socket is None:
                return

    def _has_budget(self) -> bool:
        second = int(self._loop.time())
        if second != self._second:
            self._second, self._taken = second, 0
        self._taken += 1
        return self._taken <= PER_SECOND_MAX

    def _take(self, data: bytes) -> None:
        try:
            notice = self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._count("notice_invalid")
            return
        self._on_notice(notice)
