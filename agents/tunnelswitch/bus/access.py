"""How a connection proves who it is, and knows whom it talks to: an nkey or a credentials file, and TLS.

Every identity has inboxes of its own, so that nobody else can hear the replies that it gets.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunnelswitch.bus import nkey
from tunnelswitch.errors import BusError

if TYPE_CHECKING:
    from collections.abc import Mapping

JETSTREAM_API = "$JS.API"


@dataclass(frozen=True, slots=True)
class Access:
    """What a client shows and wants to see. The default shows nothing, and talks to anybody.

    Raises:
        BusError: a file cannot be used.
    """

    seed: str | None = None
    """Path of an nkey seed; read anew for every connection, so that a new key needs no restart."""
    credentials: str | None = None
    """Path of a NATS credentials file."""
    ca: str | None = None
    """Path of the certificates (PEM) that may vouch for the servers. With it, a connection without TLS is refused."""
    inbox: str = "_INBOX"
    jetstream_api: str = JETSTREAM_API
    """Where JetStream's API is to be found; an account that imports it has it under another name."""

    def __post_init__(self) -> None:
        if self.seed is not None:
            nkey.read(Path(self.seed))
        if self.credentials is not None:
            _check_credentials(Path(self.credentials))
        if self.ca is not None:
            self._context(self.ca)

    def options(self) -> Mapping[str, Any]:
        """For nats-py's `connect`.

        Raises:
            BusError: a file can no longer be used.
        """
        options: dict[str, Any] = {"inbox_prefix": self.inbox}
        if self.seed is not None:
            options["nkeys_seed_str"] = nkey.read(Path(self.seed))
        if self.credentials is not None:
            options["user_credentials"] = self.credentials
        if self.ca is not None:
            options["tls"] = self._context(self.ca)
        return options

    @staticmethod
    def _context(ca: str) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=ca)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise BusError(
                f"the certificates {ca} cannot be used: {reason}", "give ca.crt of `tunnelswitch pki init`"
            ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context


ANONYMOUS = Access()


def _check_credentials(path: Path) -> None:
    """nats-py reads such a file without end if it is not one."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise BusError(f"the credentials file {path} cannot be read: {error}", "see cluster.credentials") from error
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise BusError(f"{path} is not a NATS credentials file", "make one with `nsc generate creds`")
