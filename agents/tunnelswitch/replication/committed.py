"""Waiting for checkpoints to be committed, from the moment of asking on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from tunnelswitch.errors import DriverError


@dataclass(frozen=True, slots=True)
class Ended:
    """One that the standby holds: its number, and when the copy went on, by the event loop's clock."""

    sequence: int
    at: float


class Wanted:
    """So many checkpoints that somebody waits for."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.last: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    def ends(self, ended: Ended) -> None:
        self._left -= 1
        if self._left <= 0 and not self.last.done():
            self.last.set_result(ended)

    def lost(self, why: str) -> None:
        if not self.last.done():
            self.last.set_exception(DriverError(why))
            self.last.exception()  # it may be that nobody waits any more


class Committed:
    """The checkpoints of one copy, for those who wait for them."""

    def __init__(self) -> None:
        self._wanted: set[Wanted] = set()

    @property
    def awaited(self) -> bool:
        """Does anybody wait?"""
        return bool(self._wanted)

    @contextlib.contextmanager
    def following(self, count: int) -> Iterator[Wanted]:
        """The next `count` to end; `last` is the last of them, and raises DriverError if there will be none."""
        wanted = Wanted(count)
        self._wanted.add(wanted)
        try:
            yield wanted
        finally:
            self._wanted.discard(wanted)

    def committed(self, sequence: int, at: float) -> None:
        """The standby holds one more."""
        for wanted in self._wanted:
            wanted.ends(Ended(sequence, at))

    def lost(self, why: str) -> None:
        """There will be none."""
        for wanted in self._wanted:
            wanted.lost(why)
