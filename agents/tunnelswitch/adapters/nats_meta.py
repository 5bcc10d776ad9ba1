"""Keeps JetStream's own leader (of its meta group) off the active site, by way of the system account.

Losing it costs nothing that is committed, but for the seconds of its election no stream gets a new leader. The epoch
store's leader is another one: nats_epochs.py. Has a connection of its own, with an identity that can do nothing else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from nats.errors import Error as NatsError

from tunnelswitch.bus.connection import DEFAULT_TIMING, Connection, Timing
from tunnelswitch.bus.store import FIND_META_LEADER, MOVE_META_LEADER
from tunnelswitch.bus.wire import describe
from tunnelswitch.errors import BusError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tunnelswitch.bus.access import Access

_PIN_SECONDS = 3.0
_TRY_SECONDS = 0.5
_PAUSE_SECONDS = 0.1


class NatsMeta:
    """`ports.MetaLeader` on the system account.

    Args:
        urls: every server of the cluster.
        source: who we are, such as `gateway/system`.
        servers: `server_name` of the NATS node by site, in the order in which sites should lead.
        access: who we are at the servers, and whom we trust.
        preferred_url: the server beside this site.
        on_leader: called with the leader's site, or None for a server that is no site's or if nobody tells, whenever
            it was looked up.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        source: str,
        servers: Mapping[str, str],
        access: Access,
        preferred_url: str | None = None,
        on_leader: Callable[[str | None], None] = lambda site: None,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self._servers = dict(servers)
        self._on_leader = on_leader
        self._connection = Connection(urls, name=source, preferred_url=preferred_url, access=access, timing=timing)

    async def start(self) -> None:
        """Begin to connect, and return at once."""
        await self._connection.start()

    async def close(self) -> None:
        """End the connection."""
        await self._connection.close()

    async def pin_leader(self, avoid: tuple[str, ...]) -> str | None:
        """Move the leader off the sites in `avoid` if it is there, to the first site of `servers` whose node is up to
        date. Returns the leader's site then: one of `avoid` if there is no such node, None if it is no site's.

        Raises:
            BusError: the servers did not answer in time, or refused.
        """
        avoided = {self._servers[site] for site in avoid if site in self._servers}
        last: BaseException | None = None
        try:
            async with asyncio.timeout(_PIN_SECONDS):
                while True:
                    try:
                        leader, current = await self._look()
                        target = next((name for name in self._servers.values() if name in current - avoided), None)
                        if leader not in avoided or target is None:
                            site = next((site for site, name in self._servers.items() if name == leader), None)
                            self._on_leader(site)
                            return site
                        await self._ask(MOVE_META_LEADER, {"placement": {"preferred": target}})
                    except (NatsError, OSError) as error:
                        last = error
                    await asyncio.sleep(_PAUSE_SECONDS)
        except TimeoutError:
            self._on_leader(None)  # nobody knows where it is
            reason = describe(last) if last else "the leader has not moved"
            raise BusError(f"leader of JetStream: {reason}", "most NATS nodes must be up and see each other") from last

    async def _look(self) -> tuple[str, set[str]]:
        """The leader, and the servers that could lead at once."""
        answer = await self._ask(FIND_META_LEADER, {"leader_only": True})
        try:
            meta = answer["data"]["meta_cluster"]
            replicas = meta.get("replicas") or []
            current = {peer["name"] for peer in replicas if peer.get("current") and not peer.get("offline")}
            return str(meta["leader"]), current
        except (KeyError, TypeError, AttributeError):
            raise BusError("JetStream is not clustered here", "run a NATS node at every site") from None

    async def _ask(self, subject: str, question: dict[str, Any]) -> dict[str, Any]:
        client = await self._connection.wait_connected()
        reply = await client.request(subject, msgspec.json.encode(question), timeout=_TRY_SECONDS)
        try:
            answer = msgspec.json.decode(reply.data, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise BusError(f"{subject}: what answers is no NATS server: {error}") from error
        if refusal := answer.get("error"):
            raise BusError(f"{subject}: {refusal}")
        return answer
