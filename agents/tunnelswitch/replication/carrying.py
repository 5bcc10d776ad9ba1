"""Checkpoints over T1 as one compressed stream, for what a machine sends is mostly what it has sent before.

A checkpoint is whole pages, and of each of them a few bytes are new. A compressor that remembers the last megabytes
sends those few (Remus calls it checkpoint compression; QEMU's own way has a fault, docs/colo.md). It knows nothing of
pages: what comes out at the other end is what went in, byte for byte, or the stream ends.

Blocking threads, two for each stream, in a process of their own: a machine stands still for as long as this takes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from tunnelswitch.config import values
from tunnelswitch.errors import DriverError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# What was written in two checkpoints of up to 16 MB each is found again. Both ends keep so much for each stream.
_WINDOW_LOG = 25
_FAST: dict[int, int] = {
    zstd.CompressionParameter.window_log: _WINDOW_LOG,
    zstd.CompressionParameter.hash_log: 19,
    zstd.CompressionParameter.chain_log: 12,
    zstd.CompressionParameter.search_log: 1,
    zstd.CompressionParameter.min_match: 6,
    zstd.CompressionParameter.target_length: 1,
    zstd.CompressionParameter.strategy: zstd.Strategy.fast,
}
_PIECE_BYTES = 128 << 10
_CONNECT_SECONDS = 2.0
_FIRST_BYTES_SECONDS = 5.0
_MAGIC = b"\x28\xb5\x2f\xfd"  # RFC 8878, 3.1.1
# A peer that is gone says nothing. The agents are much quicker; this clears up after them: some 10 s, whether anything
# is on its way to it or not (tcp(7)).
_LINE = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000),
)
_TRY_AGAIN_SECONDS = 0.1
# Over distance a lost packet in a thousand leaves the kernel's usual one (cubic) a tenth of the line, and a burst fills
# what is on the way; this one goes by what arrives, and paces itself.
_CONGESTION = b"bbr"
_CLEAR_UP_SECONDS = 1.0
# A machine has one. Others are attempts that came to nothing, or strangers'.
STREAMS_MAX = 4

Way = Callable[[socket.socket, socket.socket], None]


class Carrier:
    """T1 of one machine at one site, both ways: here QEMU's sockets, there the carrier of the other site.

    Args:
        out: the socket that QEMU sends its checkpoints to; made here.
        into: the socket on which QEMU, as a standby, takes them in; made by QEMU.
        here: HOST:PORT on T1 on which the other site's are taken in.
        there: the other site's HOST:PORT.
    """

    def __init__(self, service: str, out: Path, into: Path, here: str, there: str) -> None:
        self._out, self._into, self._here, self._there = out, into, here, there
        self.log = structlog.get_logger(__name__).bind(service=service)
        self._places = threading.BoundedSemaphore(STREAMS_MAX)
        self._listeners: list[socket.socket] = []
        self._closed = False

    def start(self) -> None:
        """Take streams in, from the other site and from QEMU.

        Raises:
            DriverError: a socket cannot be made; then nothing was done.
        """
        # T1 first: where another carrier runs it is taken, and that one's socket is left alone.
        for what, make in ((self._here, self._listen_there), (str(self._out), self._listen_here)):
            try:
                self._listeners.append(make())
            except OSError as error:
                for listener in self._listeners:
                    listener.close()
                self._listeners.clear()
                remedy = "is another carrier running, and is the address this host's?"
                raise DriverError(f"nothing can be taken in at {what}: {error.strerror or error}", remedy) from None
        for listener, serve in zip(self._listeners, (self._take_in, self._send), strict=True):
            threading.Thread(target=self._accept, args=(listener, serve), daemon=True).start()

    def close(self) -> None:
        """Take nothing in any more; streams under way end with the process."""
        self._closed = True
        if self._listeners:
            self._out.unlink(missing_ok=True)
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _listen_here(self) -> socket.socket:
        self._out.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(self._out))
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(before)
        listener.listen(STREAMS_MAX)
        return listener

    def _listen_there(self) -> socket.socket:
        host, port = _endpoint(self._here)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=STREAMS_MAX)

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        while not self._closed:
            try:
                accepted, _ = listener.accept()
            except OSError as error:
                if not self._closed:  # out of descriptors, say: others may become free
                    self.log.warning("not_taken_in", problem=error.strerror or str(error))
                    time.sleep(_TRY_AGAIN_SECONDS)
                continue
            if not self._places.acquire(blocking=False):
                accepted.close()
                self.log.warning("refused", problem=f"there are {STREAMS_MAX} streams already")
                continue
            threading.Thread(target=self._serve, args=(serve, accepted), daemon=True).start()

    def _serve(self, serve: Callable[[socket.socket], None], accepted: socket.socket) -> None:
        try:
            with accepted:
                serve(accepted)
        finally:
            self._places.release()

    def _send(self, machine: socket.socket) -> None:
        """QEMU begins to send its machine to the other site."""
        try:
            line = socket.create_connection(_endpoint(self._there), _CONNECT_SECONDS)
        except OSError as error:
            self.log.info("no_carrier_there", address=self._there, error=error.strerror or str(error))
            return
        with line:
            line.settimeout(None)
            self.log.info("sends", to=self._there)
            self._run(machine, line, Packer().run, pass_on)

    def _take_in(self, line: socket.socket) -> None:
        """The other site's carrier has a machine for our standby, if there is one that waits."""
        if not _begins(line):
            self.log.info("not_a_carrier", at=self._here, remedy="both sites need `tunnelswitch carry`")
            return
        machine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with machine:
            try:
                machine.connect(str(self._into))
            except OSError as error:
                self.log.info("no_standby_waits", socket=str(self._into), error=error.strerror)
                return
            self.log.info("takes_in", at=self._here)
            self._run(machine, line, pass_on, Unpacker().run)

    def _run(self, machine: socket.socket, line: socket.socket, out: Way, back: Way) -> None:
        """Both ways until either ends: then the whole stream is of no use to anybody."""
        for option in _LINE:
            line.setsockopt(*option)
        with contextlib.suppress(OSError):  # a kernel without it has its own, and far sites wait longer
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _CONGESTION)
        reasons: list[str] = []

        def carry(way: Way, source: socket.socket, sink: socket.socket) -> None:
            try:
                way(source, sink)
            except OSError as error:
                reasons.append(error.strerror or str(error))
            except zstd.ZstdError as error:
                reasons.append(f"what came is no carrier's stream ({error}); both sites need `tunnelswitch carry`")
            finally:
                for end in (source, sink):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

        other = threading.Thread(target=carry, args=(back, line, machine), daemon=True)
        other.start()
        carry(out, machine, line)
        other.join()
        # A standby takes over just now, and its machine needs the processor more than the system does its memory back.
        time.sleep(_CLEAR_UP_SECONDS)
        self.log.info("stream_ended", reason=next(iter(reasons), "it was closed"))


def _begins(line: socket.socket) -> bool:
    """Does a stream of ours begin here? A standby takes in one stream and no second: not that of a monitor's probe."""
    line.settimeout(_FIRST_BYTES_SECONDS)
    try:
        first = line.recv(len(_MAGIC), socket.MSG_PEEK)
    except OSError:
        return False
    line.settimeout(None)
    return first != b"" and _MAGIC.startswith(first)


class Packer:
    """One stream's way out. What it remembers is freed with it."""

    def __init__(self) -> None:
        self._compressor = zstd.ZstdCompressor(options=_FAST)

    def run(self, source: socket.socket, sink: socket.socket) -> None:
        """Send on what comes, compressed, and at once: QEMU waits for the answer to its last byte.

        Raises:
            OSError: one of the two is gone.
        """
        piece = memoryview(bytearray(_PIECE_BYTES))
        while count := source.recv_into(piece):
            sink.sendall(self._compressor.compress(piece[:count], zstd.ZstdCompressor.FLUSH_BLOCK))


class Unpacker:
    """One stream's way in."""

    def __init__(self) -> None:
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
        self._decompressor = zstd.ZstdDecompressor(options=options)

    def run(self, source: socket.socket, sink: socket.socket) -> None:
        """Send on what was packed; never more than a piece at a time, however small the bytes that it was made of.

        Raises:
            OSError: one of the two is gone.
            ZstdError: that is not what a Packer made.
        """
        piece = memoryview(bytearray(_PIECE_BYTES))
        while count := source.recv_into(piece):
            sink.sendall(self._decompressor.decompress(piece[:count], _PIECE_BYTES))
            while not self._decompressor.needs_input:
                if self._decompressor.eof:
                    return
                sink.sendall(self._decompressor.decompress(b"", _PIECE_BYTES))


def pass_on(source: socket.socket, sink: socket.socket) -> None:
    """As it is: a standby's answers are a few bytes each.

    Raises:
        OSError: one of the two is gone.
    """
    piece = memoryview(bytearray(4096))
    while count := source.recv_into(piece):
        sink.sendall(piece[:count])


def _endpoint(address: str) -> tuple[str, int]:
    found = values.split_endpoint(address)
    assert found is not None, "the deployment file's checks refuse it"
    return found
