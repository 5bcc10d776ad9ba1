"""What can be started and closed: in order, and never for longer than a limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

import structlog

CLOSE_SECONDS = 3.0

_Part = TypeVar("_Part", bound="Startable")
_log = structlog.get_logger("tunnelswitch.process")


class Startable(Protocol):
    async def start(self) -> None: ...

    async def close(self) -> None: ...


@contextlib.asynccontextmanager
async def started(part: _Part) -> AsyncIterator[_Part]:
    await part.start()
    try:
        yield part
    finally:
        await bounded(part.close)


async def bounded(*closes: Callable[[], Awaitable[None]]) -> None:
    for close in closes:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await close()
        except TimeoutError:
            _log.warning("did not close in time", seconds=CLOSE_SECONDS)
