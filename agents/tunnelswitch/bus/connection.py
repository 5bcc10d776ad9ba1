"""A NATS connection that is always being kept: several servers, one of them preferred, back within milliseconds.

Servers are tried side by side, a little after one another (the idea of RFC 8305), so that one that accepts and then
says nothing costs a stagger and not a timeout. Every client serves for one connection and is then thrown away with all
that waited in it: nothing is ever replayed. Knows no message.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from nats.errors import Error as NatsError

from tunnelswitch.bus.access import ANONYMOUS, Access
from tunnelswitch.bus.wire import WireClient, describe, publish_command
from tunnelswitch.errors import BusError, BusUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from tunnelswitch.bus.wire import Handler

_LOG = structlog.get_logger("tunnelswitch.bus")


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient a connection is, in seconds."""

    connect_seconds: float = 1.0
    """One attempt, from TCP to the server's word that it knows our subscriptions."""
    stagger_seconds: float = 0.03
    """The next server is tried beside one that has not answered for so long."""
    retry_seconds: float = 0.05
    """Pause after a round in which no server answered; doubles up to `retry_most_seconds`."""
    retry_most_seconds: float = 0.5
    ping_seconds: float = 0.1
    silence_seconds: float = 0.4
    """A ping without answer for so long: the connection is half-open. Keep it well above the round trip."""
    return_seconds: float = 2.0
    """How often a connection to another server looks whether the preferred one is back."""
    close_seconds: float = 0.5


DEFAULT_TIMING = Timing()


class Connection:
    """Keeps one client connected.

    Args:
        urls: every server of the cluster.
        name: shown in NATS' monitoring.
        subscriptions: handlers by subject, made anew on every connection.
        preferred_url: the server beside this site; tried first, and gone back to.
        access: who we are, and whom we trust.
        on_state: called with the URL on connect and with None on loss.
        awaited: somebody waits in `require` and is told there what is wrong; it is not logged as well.

    Raises:
        BusError: no URLs.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        name: str,
        subscriptions: Mapping[str, Handler] | None = None,
        preferred_url: str | None = None,
        access: Access = ANONYMOUS,
        no_echo: bool = False,
        on_state: Callable[[str | None], None] | None = None,
        timing: Timing = DEFAULT_TIMING,
        awaited: bool = False,
    ) -> None:
        if not urls:
            raise BusError("no NATS server is named", "set cluster.nats_urls")
        first = [preferred_url] if preferred_url else []
        self._urls = list(dict.fromkeys([*first, *urls]))
        self._preferred = preferred_url
        self._name = name
        self._subscriptions = dict(subscriptions or {})
        self._access = access
        self._no_echo = no_echo
        self._on_state = on_state
        self._timing = timing
        self._awaited = awaited
        self._client: WireClient | None = None
        self._open: set[WireClient] = set()
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._errors: dict[str, str] = {}
        self._log = _LOG.bind(connection=name)

    @property
    def client(self) -> WireClient | None:
        """The client to use now; None while disconnected."""
        client = self._client
        return None if client is None or client.lost.is_set() else client

    async def wait_connected(self) -> WireClient:
        """The client, as soon as there is one. Waits for ever: bound it with `asyncio.timeout`."""
        while (client := self.client) is None:
            await self._connected.wait()
            await asyncio.sleep(0)
        return client

    async def require(self, limit_seconds: float) -> None:
        """Wait until there is a client, for a person who waits too.

        Raises:
            BusUnreachableError: there is none in time; says what every server's error was.
        """
        try:
            async with asyncio.timeout(limit_seconds):
                await self.wait_connected()
        except TimeoutError:
            said = "; ".join(f"{url}: {self._errors.get(url, 'no answer yet')}" for url in self._urls)
            raise BusUnreachableError(f"no NATS server lets us in ({said})", _remedy(self._errors.values())) from None

    async def start(self) -> None:
        """Begin to connect, and return at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name=f"keep {self._name}")

    async def close(self) -> None:
        """End it, within `close_seconds` per server."""
        task, self._task = self._task, None
        if task is not None:
            await _end(task)

    async def _keep(self) -> None:
        client: WireClient | None = None
        last_url: str | None = None
        try:
            while True:
                if client is None:
                    client = await self._connect(last_url)
                self._adopt(client)
                last_url = client.url
                following = await self._hold(client)
                if following is None:
                    self._drop(client)
                else:
                    self._adopt(following)
                client = following
                await self._discard_all_but(client)
        finally:
            self._client = None
            self._connected.clear()
            await self._discard_all_but(None)

    async def _discard_all_but(self, kept: WireClient | None) -> None:
        for client in self._open - {kept}:
            await self._discard(client)

    async def _discard(self, client: WireClient) -> None:
        await client.discard(self._timing.close_seconds)
        self._open.discard(client)

    def _adopt(self, client: WireClient) -> None:
        if self._client is client:
            return
        self._client = client
        self._connected.set()
        self._errors.clear()
        self._log.info("connected to NATS", url=client.url, preferred=client.url == (self._preferred or client.url))
        if self._on_state is not None:
            self._on_state(client.url)

    def _drop(self, client: WireClient) -> None:
        self._client = None
        self._connected.clear()
        self._log.warning("lost NATS, connecting anew", url=client.url, reason=client.reason)
        if self._on_state is not None:
            self._on_state(None)

    async def _connect(self, last_url: str | None) -> WireClient:
        """Try for ever. The server that has just failed us comes last."""
        pause = self._timing.retry_seconds
        order = sorted(self._urls, key=lambda url: url == last_url)
        said: set[str] = set()
        while True:
            _heed_cancellation()
            client = await self._first_of(order)
            if client is not None:
                return client
            if not self._awaited and not said.issuperset(self._errors.values()):
                said.update(self._errors.values())  # each reason once: another one may come to light
                self._log.error(
                    "no NATS server answers, trying for ever",
                    errors=dict(self._errors),
                    remedy=_remedy(self._errors.values()),
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._timing.retry_most_seconds)

    async def _first_of(self, order: Sequence[str]) -> WireClient | None:
        """One round over the servers: the first connection that works."""
        waiting = list(order)
        running: set[asyncio.Task[WireClient | None]] = set()
        winner: WireClient | None = None
        try:
            while winner is None and (waiting or running):
                if waiting:
                    running.add(asyncio.create_task(self._attempt(waiting.pop(0))))
                stagger = self._timing.stagger_seconds if waiting else None
                done, running = await asyncio.wait(running, timeout=stagger, return_when=asyncio.FIRST_COMPLETED)
                winner = next((client for task in done if (client := task.result())), None)
        finally:
            await _end(*running)
        await self._discard_all_but(winner)
        return winner

    async def _attempt(self, url: str) -> WireClient | None:
        """One connection with its subscriptions known to the server, or None."""
        client = WireClient(url, self._complain)
        self._open.add(client)
        try:
            async with asyncio.timeout(self._timing.connect_seconds):
                await client.open(
                    access=self._access,
                    name=self._name,
                    no_echo=self._no_echo,
                    timeout_seconds=self._timing.connect_seconds,
                )
                for subject, handler in self._subscriptions.items():
                    await client.listen(subject, handler)
                await client.flush()
        except Exception as error:  # noqa: BLE001  whatever it is, the answer is another attempt; it is logged
            why = error.diagnostics() if isinstance(error, BusError) else describe(error)
            self._errors[url] = client.reason or why
            await self._discard(client)
            return None
        except asyncio.CancelledError:
            await self._discard(client)
            raise
        return client

    async def _hold(self, client: WireClient) -> WireClient | None:
        """Stay until the client is lost (None), or the preferred server is back (a client of it)."""
        _heed_cancellation()
        lost = asyncio.create_task(client.lost.wait())
        ping = asyncio.create_task(self._ping(client))
        home = asyncio.create_task(self._find_home(client))
        try:
            await asyncio.wait({lost, home}, return_when=asyncio.FIRST_COMPLETED)
            return home.result() if home.done() else None
        finally:
            await _end(lost, ping, home)

    async def _ping(self, client: WireClient) -> None:
        while True:
            await asyncio.sleep(self._timing.ping_seconds)
            if not await client.answers(self._timing.silence_seconds):
                client.lose(f"no answer for {self._timing.silence_seconds:g} s")

    async def _find_home(self, client: WireClient) -> WireClient:
        """Wait until the preferred server is back, and part of the cluster again."""
        preferred = self._preferred
        if preferred is None or client.url == preferred:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        while True:
            _heed_cancellation()
            await asyncio.sleep(self._timing.return_seconds)
            candidate = await self._attempt(preferred)
            if candidate is None:
                continue
            if await self._joined(client, candidate):
                return candidate
            await self._discard(candidate)

    async def _joined(self, client: WireClient, candidate: WireClient) -> bool:
        """Does what the one server is told arrive at the other? A node that has just started is alone for a while."""
        inbox = client.new_inbox()
        heard = asyncio.Event()
        await candidate.listen(inbox, lambda _subject, _payload: heard.set())
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(self._timing.connect_seconds):
                await candidate.flush()
                while not heard.is_set():
                    client.write(publish_command(inbox, b""), 0)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._timing.stagger_seconds):
                            await heard.wait()
        return heard.is_set()

    def _complain(self, problem: str) -> None:
        if problem not in self._errors.values():
            self._errors[problem] = problem
            self._log.warning("NATS complains", problem=problem)


def _remedy(errors: Iterable[str]) -> str:
    if any("authorization" in error.lower() for error in errors):
        return "let the servers include the accounts.conf that `tunnelswitch pki init` made with this key"
    return "start nats-server, or correct cluster.nats_urls"


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel and wait."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _heed_cancellation() -> None:
    """nats-py swallows cancellations in places (so does `wait_for` of Python 3.11, which it uses, when the awaited
    comes at the same time): what calls it and then waits would never end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
