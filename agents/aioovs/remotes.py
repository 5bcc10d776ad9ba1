"""Where a database is (`unix:`, `tcp:`, `ssl:` as in ovsdb(7)) and how to open a socket to it.

TLS files belong to one Database: python-ovs keeps them in class attributes, which would make every connection of
a process share one identity. It does NOT retry; Database does.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from aioovs.errors import ConnectError

DEFAULT_PORT = 6640  # IANA's, RFC 7047 section 6
_HOST_PORT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d{1,5}))?\Z")
P = TypeVar("P", bound=asyncio.Protocol)


@dataclass(frozen=True)
class SslFiles:
    """PEM files of a TLS client. Read again at every connection, so that they can be rotated.

    OVS certificates seldom carry host names, so the peer is trusted when `ca_certificate` signed it; set
    `server_hostname` to check the name too.
    """

    private_key: str | Path
    certificate: str | Path
    ca_certificate: str | Path
    server_hostname: str | None = None

    def context(self) -> ssl.SSLContext:
        """A client context, TLS 1.2 or later, that presents our certificate. Raises ConnectError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = self.server_hostname is not None
        try:
            context.load_verify_locations(self.ca_certificate)
            context.load_cert_chain(self.certificate, self.private_key)
        except OSError as error:  # ssl.SSLError is one
            raise ConnectError(
                f"TLS files unusable ({error}): check {self.private_key}, {self.certificate}, {self.ca_certificate}"
            ) from error
        return context


@dataclass(frozen=True)
class Remote:
    """A parsed remote. `path` is set for unix, `host` and `port` for tcp and ssl."""

    name: str
    scheme: str
    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, name: str) -> Remote:
        """Raises ConnectError for anything but `unix:PATH`, `tcp:HOST[:PORT]`, `ssl:HOST[:PORT]`."""
        scheme, colon, rest = name.partition(":")
        if scheme == "unix" and rest:
            return cls(name, scheme, path=rest)
        found = _HOST_PORT.match(rest) if colon and scheme in ("tcp", "ssl") else None
        if found is None or int(found["port"] or 1) not in range(1, 65536):
            raise ConnectError(
                f"bad remote {name!r}: write unix:/path/db.sock, tcp:HOST:PORT or ssl:HOST:PORT ([...] around IPv6)"
            )
        return cls(name, scheme, host=found["six"] or found["host"], port=int(found["port"] or DEFAULT_PORT))

    async def open(self, factory: Callable[[], P], files: SslFiles | None) -> P:
        """Connects and returns the protocol. Raises ConnectError. An IP address needs no resolver thread."""
        loop = asyncio.get_running_loop()
        try:
            if self.scheme == "unix":
                return (await loop.create_unix_connection(factory, sock=self._unix_socket()))[1]
            if self.scheme == "tcp":
                return (await loop.create_connection(factory, self.host, self.port))[1]
            if files is None:
                raise ConnectError(f"{self.name}: give ssl=SslFiles(...), an ssl: remote needs key, certificate and CA")
            hostname = files.server_hostname or ""
            return (
                await loop.create_connection(
                    factory, self.host, self.port, ssl=files.context(), server_hostname=hostname
                )
            )[1]
        except BlockingIOError as error:
            raise ConnectError(f"{self.name}: the server has stopped accepting connections: is it stuck?") from error
        except OSError as error:
            raise ConnectError(f"{self.name}: {error.strerror or error}; is ovsdb-server running there?") from error

    def _unix_socket(self) -> socket.socket:
        # A unix connect succeeds or fails at once; EAGAIN means that the server has stopped accepting.
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            unix.connect(self.path)
        except OSError:
            unix.close()
            raise
        return unix
