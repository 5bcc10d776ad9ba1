"""Reads that are asked for in one step of the loop, and confirmed together.

A poll asks for the records of all groups at once. Each of them confirmed by itself is a write to the store; together it
is one. Where records change while they are read, or anything else goes wrong, each is read by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from tunnelswitch.errors import EpochStoreError

T = TypeVar("T")

One = Callable[[str, float, str], Awaitable[T]]
"""Reads a key before a deadline in seconds; the text says what it is, for errors."""
Many = Callable[[Sequence[str], float], Awaitable[dict[str, T]]]

# What is left of the deadline is for reading each by itself. Together takes four trips to the leader, one after the
# other: of 0.5 s this much is enough for round trips of 100 ms. Where records change meanwhile, so far away, the next
# poll has it.
SHARE = 0.8


class Together(Generic[T]):
    """Gathers reads.

    Args:
        one: reads a single key.
        many: reads several, all as of one moment. Raises EpochStoreError.
    """

    def __init__(self, one: One[T], many: Many[T]) -> None:
        self._one = one
        self._many = many
        self._gathered: list[tuple[str, float]] = []
        self._reading: asyncio.Future[dict[str, T]] | None = None

    async def read(self, key: str, deadline_seconds: float, what: str) -> T:
        """What stands under `key`, as `one` gives it."""
        ends_at = asyncio.get_running_loop().time() + deadline_seconds
        self._gathered.append((key, deadline_seconds))
        if self._reading is None:
            # A task begins after this step of the loop: whatever else is asked for in it goes along.
            self._reading = asyncio.create_task(self._read_gathered(), name="reads")
        found = await asyncio.shield(self._reading)
        if key in found:
            return found[key]
        return await self._one(key, max(0.001, ends_at - asyncio.get_running_loop().time()), what)

    async def _read_gathered(self) -> dict[str, T]:
        """What was found; nothing if it has to be read one by one."""
        gathered, self._gathered, self._reading = self._gathered, [], None
        keys = list(dict.fromkeys(key for key, _ in gathered))
        if len(keys) == 1:
            return {}
        try:
            return await self._many(keys, SHARE * min(seconds for _, seconds in gathered))
        except EpochStoreError:
            return {}
