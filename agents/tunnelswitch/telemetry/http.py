"""GET /metrics and /healthz, on the process' own event loop.

Deliberately tiny: one request per connection, a few connections, little memory, little time. No TLS and no
authentication: listen on an address that only the operator's network reaches. Writes nothing but answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable

from tunnelswitch.config.values import is_address, split_endpoint
from tunnelswitch.errors import TunnelswitchError
from tunnelswitch.telemetry.metrics import Metrics

REQUEST_MAX_BYTES = 8192
REQUEST_SECONDS = 5.0
CONNECTIONS_MAX = 16
_IP_FREEBIND = 15  # ip(7): the underlay address may come up after us
_IPV6_FREEBIND = 78
_TEXT = "text/plain; charset=utf-8"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class TelemetryServer:
    """Serves one process' metrics and health.

    Args:
        address: `HOST:PORT` or `[IPV6]:PORT`.
        reasons: why the process is not ready; an empty list means that it is.
    """

    def __init__(self, address: str, metrics: Metrics, reasons: Callable[[], list[str]]) -> None:
        self._address = address
        self._metrics = metrics
        self._reasons = reasons
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that it listens on; 0 while it does not."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server and self._server.sockets else 0

    async def start(self) -> None:
        """Listen.

        Raises:
            TunnelswitchError: the address cannot be listened on.
        """
        try:
            listener = _listen(self._address)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            remedy = "stop the other process" if error.errno == errno.EADDRINUSE else "correct the address"
            raise TunnelswitchError(
                f"cannot serve metrics on {self._address}: {reason}",
                f"{remedy}, or give another agent_metrics or switcher_metrics",
            ) from None
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=REQUEST_MAX_BYTES)

    async def close(self) -> None:
        """Stop listening and drop whoever is connected."""
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # we run in one
        self._connections.add(task)
        try:
            if len(self._connections) > CONNECTIONS_MAX:
                return
            async with asyncio.timeout(REQUEST_SECONDS):
                writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                await writer.drain()
        except asyncio.LimitOverrunError:
            writer.write(_response(431, _TEXT, b"the request is too large\n"))
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            pass  # a client that is slow or gone gets nothing
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(REQUEST_SECONDS):
                    await writer.wait_closed()

    def _answer(self, request: bytes) -> bytes:
        words = request.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response(400, _TEXT, b"this is an HTTP/1.1 server\n")
        method, target = words[0], words[1].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            return _response(405, _TEXT, b"only GET and HEAD\n")
        if target == b"/metrics":
            answer = _response(200, _PROMETHEUS, self._metrics.render(), head=method == b"HEAD")
        elif target == b"/healthz":
            answer = self._health(head=method == b"HEAD")
        else:
            answer = _response(404, _TEXT, b"there are /metrics and /healthz\n", head=method == b"HEAD")
        return answer

    def _health(self, *, head: bool) -> bytes:
        reasons = self._reasons()
        health = {
            "ready": not reasons,
            "reasons": reasons,
            "site": self._metrics.site,
            "process": self._metrics.process,
        }
        body = json.dumps(health).encode() + b"\n"
        return _response(503 if reasons else 200, "application/json", body, head=head)


_PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def _response(status: int, content_type: str, body: bytes, *, head: bool = False) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {_PHRASES[status]}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if status == 405:
        lines.append("Allow: GET, HEAD")
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if head else body)


def _listen(address: str) -> socket.socket:
    endpoint = split_endpoint(address)
    if endpoint is None:
        raise OSError(errno.EINVAL, "not HOST:PORT")
    host, port = endpoint
    if not is_address(host):
        host = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET:
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        else:
            listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        listener.bind((host, port))
        listener.listen(CONNECTIONS_MAX)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
