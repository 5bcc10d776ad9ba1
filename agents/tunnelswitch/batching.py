"""Many switches of one data plane in one transaction: those asked for in one step of the loop, or while the transaction
before is under way. It knows nothing of OVSDB, and judges nothing: every action gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog

from tunnelswitch.core.actions import ApplyTunnels
from tunnelswitch.core.events import SwitchApplied, SwitchConflict, SwitchFailed

# The first of very many need not wait for the last: ovs-vswitchd takes a while for each port.
BATCH_MAX = 256

_log = structlog.get_logger("tunnelswitch.batching")

Answer = SwitchApplied | SwitchConflict | SwitchFailed


@dataclass(frozen=True, slots=True)
class Asked:
    """An action that waits for its answer until `deadline`, in seconds of its adapter's clock."""

    action: ApplyTunnels
    deadline: float
    answer: asyncio.Future[Answer]

    def tell(self, answer: Answer) -> None:
        if not self.answer.done():  # it may have been given up
            self.answer.set_result(answer)


def fail(batch: Iterable[Asked], error: str) -> None:
    """Answer all of these that have no answer yet."""
    for asked in batch:
        asked.tell(SwitchFailed(asked.action.group, error))


class Batches:
    """One batch after the other.

    Args:
        together: brings a batch to an end: when it returns, every action of it is answered.
    """

    def __init__(self, together: Callable[[list[Asked]], Awaitable[None]]) -> None:
        self._together = together
        self._waiting: list[Asked] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, action: ApplyTunnels, deadline: float) -> Answer:
        """The answer to one action."""
        asked = Asked(action, deadline, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._task is None or self._task.done():
            # A task begins after this step of the loop: whatever else is asked for in it goes along.
            self._task = asyncio.create_task(self._run(), name="switches")
        return await asked.answer

    async def close(self) -> None:
        """Whoever still waits is answered that nothing is done any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        fail(self._waiting, "the data plane was closed")
        self._waiting.clear()

    def _take(self) -> list[Asked]:
        """The first of those that wait, never two of one group: the second was decided without the first."""
        batch: dict[str, Asked] = {}
        later = []
        for asked in self._waiting:
            if asked.answer.done():
                continue
            if len(batch) < BATCH_MAX and asked.action.group not in batch:
                batch[asked.action.group] = asked
            else:
                later.append(asked)
        self._waiting = later
        return list(batch.values())

    async def _run(self) -> None:
        while batch := self._take():
            try:
                await self._together(batch)
            except Exception as error:  # noqa: BLE001 - told to everybody who waits, and logged
                _log.error("a switch failed in an unforeseen way", error=repr(error))
                fail(batch, f"internal error: {error!r}")
            finally:
                fail(batch, "given up")
