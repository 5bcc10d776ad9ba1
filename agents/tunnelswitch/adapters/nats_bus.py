"""The bus over core NATS: what the sites tell each other, at most once, never replayed.

A publish goes to the socket at once or is dropped and counted. What arrives is decoded and given to `emit` in the
reader's own step; what cannot be decoded, or does not come from whom it should, is counted and dropped. Freshness and
meaning are the core's business, records that must not be lost are the epoch store's.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from tunnelswitch.bus import codec, limits, speech, subjects
from tunnelswitch.bus.access import ANONYMOUS, Access
from tunnelswitch.bus.connection import DEFAULT_TIMING, Connection, Timing
from tunnelswitch.bus.turns import Listener, Teller
from tunnelswitch.bus.wire import WireClient, publish_command
from tunnelswitch.core.facts import Epoch, GroupRecord, Heartbeat
from tunnelswitch.errors import BadMessageError, BusError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tunnelswitch.core.actions import Message
    from tunnelswitch.ports import Emit

_LOG = structlog.get_logger("tunnelswitch.bus")

HEARTBEAT_BACKLOG_BYTES = 16_384
"""A heartbeat that would have to wait behind more than this is old when it arrives."""
BACKLOG_BYTES = 4 * limits.PAYLOAD_BYTES
_LOG_EVERY = 1000


@dataclass(slots=True)
class BusCounts:
    """Since the start. Keys of `bad` are BadMessageError's kinds."""

    published: int = 0
    received: int = 0
    dropped: int = 0
    bad: Counter[str] = field(default_factory=Counter)


class NatsBus:
    """`ports.Bus` on NATS.

    Args:
        urls: every server of the cluster.
        cluster: the deployment's name.
        source: who we are, such as `gateway/switcher`; what bears our own name is not heard.
        kinds: the kinds of message to hear, of `subjects.BY_NAME`. `record`, the epoch store's own word on a commit,
            arrives as an `Epoch` fact.
        emit: gets every message, in the event loop; must not block.
        preferred_url: the server beside this site.
        access: who we are, and whom we trust.
        clock_unix: wall clock for the envelope's `time`.
        on_bad: called with the kind of every bad message.
        on_state: called with the server's URL on connect and None on loss.
        timing: how patient the connection is.
        awaited: somebody waits in `require`, see `Connection`.

    Raises:
        BusError: a name cannot be part of a subject.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        cluster: str,
        source: str,
        kinds: Iterable[str],
        emit: Emit,
        preferred_url: str | None = None,
        access: Access = ANONYMOUS,
        clock_unix: Callable[[], float] = time.time,
        on_bad: Callable[[str], None] | None = None,
        on_state: Callable[[str | None], None] | None = None,
        timing: Timing = DEFAULT_TIMING,
        awaited: bool = False,
    ) -> None:
        self.counts = BusCounts()
        self._cluster = subjects.checked_token(cluster, "cluster name")
        self._source = source
        self._emit = emit
        self._clock_unix = clock_unix
        self._on_bad = on_bad
        self._id_prefix = secrets.token_hex(6)
        self._next_id = 0
        self._subjects: dict[tuple[type, str], str] = {}
        self._teller, self._listener = Teller(), Listener()
        self._client: WireClient | None = None
        self._connection = Connection(
            urls,
            name=f"{source} bus",
            subscriptions={subjects.wildcard(cluster, kind): self._receive for kind in kinds},
            preferred_url=preferred_url,
            access=access,
            no_echo=True,
            on_state=on_state,
            timing=timing,
            awaited=awaited,
        )

    @property
    def connected(self) -> bool:
        """Is there a server that takes and gives messages now?"""
        return self._connection.client is not None

    async def start(self) -> None:
        """Begin to connect, and return at once; an absent bus is retried for ever."""
        await self._connection.start()

    async def require(self, limit_seconds: float) -> None:
        """Wait until a server lets us in.

        Raises:
            BusUnreachableError: none does in time.
        """
        await self._connection.require(limit_seconds)

    async def close(self) -> None:
        """End the connection. What waits in its socket is lost."""
        await self._connection.close()

    def publish(self, message: Message) -> None:
        """Send now, or drop and count: while disconnected, or when the socket has not taken what came before."""
        backlog = HEARTBEAT_BACKLOG_BYTES if type(message) is Heartbeat else BACKLOG_BYTES
        client = self._connection.client
        if client is not self._client:
            self._client = client
            self._teller.lost()  # nobody knows how much of the last message left the socket
        if client is None:
            self.counts.dropped += 1
            return
        self._next_id += 1
        try:
            if isinstance(message, Heartbeat):
                message = self._teller.shorten(message)
            payload = codec.encode(message, self._source, f"{self._id_prefix}-{self._next_id}", self._clock_unix())
            command = publish_command(self._subject_of(message), payload)
        except BusError as error:
            self._bad(error.kind if isinstance(error, BadMessageError) else "invalid", error, "to send")
            self._teller.lost()
            return
        if client.write(command, backlog):
            self.counts.published += 1
        else:
            self.counts.dropped += 1
            self._teller.lost()

    async def flush(self, deadline_seconds: float) -> None:
        """Return once everything published so far has left the socket, or at the deadline."""
        client = self._connection.client
        if client is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline_seconds):
                    await client.drain()

    def _subject_of(self, message: Message) -> str:
        kind = subjects.BY_TYPE[type(message)]
        key = (kind.message_type, kind.token(message))
        known = self._subjects.get(key)
        if known is None:
            known = self._subjects[key] = subjects.subject_of(self._cluster, message)
        return known

    def _receive(self, subject: bytes, payload: bytes) -> None:
        try:
            envelope = codec.decode(payload)
            if envelope.source == self._source:
                return
            speech.check_sender(subject.decode("utf-8", "replace"), envelope)
        except BadMessageError as error:
            self._bad(error.kind, error, subject.decode("utf-8", "replace"))
            return
        self.counts.received += 1
        message = envelope.message
        if isinstance(message, Heartbeat):
            message = self._listener.complete(message)
        self._emit(Epoch(message) if isinstance(message, GroupRecord) else message)

    def _bad(self, kind: str, error: BusError, where: str) -> None:
        """Counted always, logged for the first of a kind and then once in a thousand: a flood must not fill the log."""
        self.counts.bad[kind] += 1
        if self.counts.bad[kind] % _LOG_EVERY == 1:
            _LOG.warning(
                "bad message dropped",
                kind=kind,
                where=where,
                count=self.counts.bad[kind],
                problem=error.problem,
                remedy=error.remedy,
            )
        if self._on_bad is not None:
            self._on_bad(kind)
