"""Looking at the guest's domains: `xl list` now and then, and soon after xenstored said that a domain came or went.

Facts before words: a run has ended when a list that names dom0 does not name its domain any more, or names it as
crashed or dying. A list that fails changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from xenkeeper.domains import INCOMING, Domain
from xenkeeper.xl import Xl, XlError

POLL_SECONDS = 1.0
# Looking may take this share of the time at most: a host under load is not loaded more.
BUSY_SHARE = 0.2
_ENDED_MAX = 16
_WATCH = ("xenstore-watch", "@introduceDomain", "@releaseDomain")
_WATCH_AGAIN_SECONDS = 5.0
_WATCH_CHUNK_BYTES = 4096


class Looker:
    """What `xl list` says about one guest.

    Args:
        on_look: called after every look that succeeded.
        on_end: called once with the domid of a domain of the guest that has ended.
        on_problem: called with a short kind and a line.
    """

    def __init__(
        self,
        xl: Xl,
        on_look: Callable[[], None],
        on_end: Callable[[int], None],
        on_problem: Callable[[str, str], None],
    ) -> None:
        self._xl, self._on_look, self._on_end, self._on_problem = xl, on_look, on_end, on_problem
        self.living: dict[int, Domain] = {}
        self.mine: dict[int, Domain] = {}
        self.fresh = False
        self._expected: set[int] = set()
        self._ended: deque[int] = deque(maxlen=_ENDED_MAX)
        self._wake = asyncio.Event()
        self._looking = asyncio.Lock()

    def wake(self) -> None:
        """Look soon."""
        self._wake.set()

    def expect(self, domid: int) -> None:
        """An agent knows a domain of the guest by this number: if the next list does not, it has ended."""
        if domid not in self._ended and domid not in self.mine:
            self._expected.add(domid)
            self.wake()

    def has_ended(self, domid: int) -> bool:
        """Has a domain of the guest with this number been seen, and seen to end?"""
        return domid in self._ended

    @property
    def guest(self) -> Domain | None:
        """The guest's domain under its own name."""
        return next((domain for domain in self.mine.values() if not domain.name.endswith(INCOMING)), None)

    @property
    def incoming(self) -> Domain | None:
        """The copy that is being received, or is held, or was left."""
        return next((domain for domain in self.mine.values() if domain.name.endswith(INCOMING)), None)

    @property
    def ended(self) -> tuple[int, ...]:
        """Those domains, oldest first."""
        return tuple(self._ended)

    async def run(self, name: str, timeout_seconds: float) -> None:
        """Look for ever."""
        watching = asyncio.create_task(self._watch_store())
        now = asyncio.get_running_loop().time
        try:
            while True:
                self._wake.clear()
                began_at = now()
                with contextlib.suppress(XlError):
                    await self.look(name, timeout_seconds)
                rest = (now() - began_at) * (1 - BUSY_SHARE) / BUSY_SHARE
                await asyncio.sleep(rest)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()
        finally:
            watching.cancel()

    async def look(self, name: str, timeout_seconds: float) -> None:
        """Look once. Raises XlError if there is no list to be had; then everything stays as it was."""
        async with self._looking:
            try:
                found = await self._xl.domains(timeout_seconds)
            except XlError as error:
                self.fresh = False
                self._on_problem("xl_failed", str(error))
                raise
            self._take(name, found)
        self._on_look()

    def _take(self, name: str, found: tuple[Domain, ...]) -> None:
        self.living = {domain.domid: domain for domain in found if not domain.ended}
        former, expected, self._expected = self.mine, self._expected, set()
        # Amid its destruction a domain loses its name; one that was the guest's is the guest's as long as it lives.
        kept = {domid: domain for domid, domain in former.items() if domid in self.living}
        named = {i: domain for i, domain in self.living.items() if domain.name in (name, name + INCOMING)}
        self.mine = kept | named
        self.fresh = True
        for domid in self.mine.keys() & self._ended:  # Xen has begun again with its numbers
            self._ended.remove(domid)
        for domid in sorted({*former, *expected} - self.living.keys()):
            self._ended.append(domid)
            self._on_end(domid)

    async def _watch_store(self) -> None:
        """Every line of xenstore-watch is a domain that came or went; without it the looks at intervals are all."""
        told = False
        while True:
            try:
                process = await asyncio.create_subprocess_exec(
                    *_WATCH, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, start_new_session=True
                )
            except OSError as error:
                if not told:
                    self._on_problem("no_watch", f"{_WATCH[0]} cannot be started: {error.strerror}")
                told = True
            else:
                assert process.stdout is not None
                try:
                    while await process.stdout.read(_WATCH_CHUNK_BYTES):
                        self.wake()
                    await process.wait()
                finally:
                    if process.returncode is None:
                        process.kill()
            await asyncio.sleep(_WATCH_AGAIN_SECONDS)
