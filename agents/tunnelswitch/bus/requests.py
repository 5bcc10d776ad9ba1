"""Questions to JetStream that end: bounded, given up as soon as the connection is lost, asked again where that is safe.

nats-py's requests wait out their timeout although the connection that would bring the answer is gone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from nats.errors import Error as NatsError
from nats.js.errors import APIError

from tunnelswitch.bus.access import JETSTREAM_API

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.js import JetStreamContext

    from tunnelswitch.bus.connection import Connection

    Call = Callable[[JetStreamContext], Awaitable["_T"]]

_T = TypeVar("_T")

WRONG_LAST_SEQUENCE = 10071
IN_PROCESS = 10164
"""Another compare-and-set on this key, or a read's mark, is not stored yet: nothing was written, ask again."""
NO_PEERS = 10005
"""Too few nodes are up for the replicas asked for: usual for the seconds in which a cluster starts."""
TRY_SECONDS = 0.5
"""A question without an answer for so long is asked again: the leader may have changed."""
PAUSE_SECONDS = 0.003
PAUSE_MOST_SECONDS = 0.1
_NEVER_SECONDS = 3600.0
"""nats-py's own time limit: ours are tighter."""


class AskAgain(OSError):  # noqa: N818  not an error: look once more
    """The answer was an intermediate one."""


class Requests:
    """JetStream calls over a connection that may be another one by the next call.

    Args:
        api: where JetStream's API is to be found.
    """

    def __init__(self, connection: Connection, api: str = JETSTREAM_API) -> None:
        self._connection = connection
        self._api = api

    async def ask(self, call: Call[_T]) -> _T:
        """One call, as soon as there is a connection. Unbounded: use it within `asyncio.timeout`.

        Raises:
            ConnectionError: the connection was lost before the answer.
        """
        client = await self._connection.wait_connected()
        answer = asyncio.ensure_future(call(client.jetstream(timeout=_NEVER_SECONDS, prefix=self._api)))
        lost = asyncio.create_task(client.lost.wait())
        try:
            await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ConnectionError(f"{client.url}: {client.reason}")
            return answer.result()
        finally:
            for task in (answer, lost):
                task.cancel()
            await asyncio.gather(answer, lost, return_exceptions=True)

    async def until(self, call: Call[_T], deadline_seconds: float, try_seconds: float = TRY_SECONDS) -> _T:
        """Repeat a call that does no harm twice until it is answered.

        Raises:
            nats.js.errors.APIError: an answer that waiting does not change.
            OSError, nats.errors.Error: the last failure, at the deadline.
        """
        last: BaseException | None = None
        pause_seconds = PAUSE_SECONDS
        try:
            async with asyncio.timeout(deadline_seconds):
                while True:
                    try:
                        async with asyncio.timeout(min(try_seconds, deadline_seconds)):
                            return await self.ask(call)
                    except (NatsError, OSError) as error:
                        if isinstance(error, APIError) and not passes(error):
                            raise
                        last = error
                    await asyncio.sleep(pause_seconds)
                    pause_seconds = min(2 * pause_seconds, PAUSE_MOST_SECONDS)
        except TimeoutError as error:
            raise last or error from error


def passes(error: APIError) -> bool:
    """Will waiting help? Another write came between, or for the moment there is no leader, or no node for a replica."""
    return error.err_code in (WRONG_LAST_SEQUENCE, IN_PROCESS, NO_PEERS) or error.code == 503
