"""Waiting for one checkpoint more, that begins after the asking; one that is under way then does not count.

`begun` and `committed` are called as a copy tells of them. A copy that tells of the end alone has at most one under
way, so that the second end is of one that began after the asking.
"""

from __future__ import annotations

import asyncio

from tunnelswitch.errors import DriverError


class Wanted:
    """One checkpoint that somebody waits for. `news`: it has come, will not come, or one ended that does not count."""

    def __init__(self, *, tells_begin: bool) -> None:
        self._ends = 1 if tells_begin else 2
        self._begun = not tells_begin
        self._armed = not tells_begin
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.news = asyncio.Event()

    def arm(self) -> None:
        """What begins from now on counts."""
        self._armed = True

    def begins(self) -> None:
        self._begun |= self._armed

    def ends(self, sequence: int) -> None:
        self.news.set()
        if not self._begun:
            return
        self._ends -= 1
        if self._ends <= 0 and not self.done.done():
            self.done.set_result(sequence)

    def lost(self, why: str) -> None:
        self.news.set()
        if not self.done.done():
            self.done.set_exception(DriverError(why))
            self.done.exception()  # it may be that nobody waits any more


class Committed:
    """The checkpoints of one copy, for those who wait for one."""

    def __init__(self) -> None:
        self._wanted: set[Wanted] = set()

    def want(self, *, tells_begin: bool) -> Wanted:
        """Wait for one from now on; `forget` it afterwards."""
        wanted = Wanted(tells_begin=tells_begin)
        self._wanted.add(wanted)
        return wanted

    def forget(self, wanted: Wanted) -> None:
        self._wanted.discard(wanted)

    def begun(self) -> None:
        """One begins: from here on the copy does nothing that is not in it."""
        for wanted in self._wanted:
            wanted.begins()

    def committed(self, sequence: int) -> None:
        """The standby holds it."""
        for wanted in self._wanted:
            wanted.ends(sequence)

    def lost(self, why: str) -> None:
        """There will be none."""
        for wanted in self._wanted:
            wanted.lost(why)
