"""What an operator asks of the switchers: that another site serve, that a site serve nobody, that nothing may move.

A request names the stamp it was made under and is void under any other, so that nobody moves what has moved already. It
is repeated until it is answered: one message may be lost. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import socket
from collections.abc import AsyncIterator, Callable

from tunnelswitch.config import Deployment
from tunnelswitch.core.facts import (
    Decision,
    DrainRequest,
    Epoch,
    GroupRecord,
    MoveRequest,
    PauseRequest,
    PlanRequest,
    Serving,
)
from tunnelswitch.errors import RecordMissingError, RefusedError
from tunnelswitch.ports import Bus, Epochs
from tunnelswitch.processes.connecting import operator_bus, operator_epochs

HEARS = ("decision", "epoch", "record", "serving")
READ_SECONDS = 3.0
ASK_AGAIN_SECONDS = 1.0
HEARD_MAX = 4096
NAME_MAX = 64

Tell = Callable[[str], object]
Wish = MoveRequest | DrainRequest | PauseRequest


class Operator:
    """A person's side of the bus and of the epoch store.

    Args:
        tell: gets a line when something worth waiting for has happened.
    """

    def __init__(self, epochs: Epochs, tell: Tell) -> None:
        self._tell = tell
        self._epochs = epochs
        self._bus: Bus
        self._heard: asyncio.Queue[object] = asyncio.Queue(HEARD_MAX)
        self.asked_by = f"{getpass.getuser()}@{socket.gethostname()}"[:NAME_MAX]

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, deployment: Deployment, tell: Tell) -> AsyncIterator[Operator]:
        """Connect to both.

        Raises:
            BusUnreachableError: no NATS server lets us in.
        """
        async with operator_epochs(deployment) as epochs:
            operator = cls(epochs, tell)
            async with operator_bus(deployment, HEARS, operator._hear) as operator._bus:
                yield operator

    def _hear(self, event: object) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # asked again in a second
            self._heard.put_nowait(event)

    async def record(self, group: str) -> GroupRecord:
        """The group's record, confirmed.

        Raises:
            EpochStoreError: the store does not answer.
            RecordMissingError: there is none.
        """
        found, _ = await self._epochs.read(group, READ_SECONDS)
        if found is None:
            raise RecordMissingError(group)
        return found

    # ------------------------------------------------------------------ wishes

    async def switchover(self, group: str, target: str, wait_seconds: float) -> GroupRecord:
        """Have `target` serve the group, and wait until it does.

        Raises:
            RefusedError: a switcher said why not, or none answered in time.
        """

        def wish(record: GroupRecord) -> MoveRequest:
            return MoveRequest(group, record.stamp, target, self.asked_by)

        record = await self.record(group)
        if record.active == target:
            return record
        record = await self._until(group, record, wish, lambda now: now.active == target, wait_seconds, final=True)
        self._tell(f"{group}: {target} is to serve, by epoch {record.stamp.epoch}")
        await self._serving(record, wait_seconds)
        return record

    async def plan(self, group: str, target: str, wait_seconds: float) -> str:
        """What a switchover to `target` would do now; nothing is done.

        Raises:
            RefusedError: it would be refused, or nobody answered in time.
        """
        record = await self.record(group)
        if record.active == target:
            return f"{target} is active already"
        try:
            async with asyncio.timeout(wait_seconds):
                while True:
                    self._bus.publish(PlanRequest(group, record.stamp, target, self.asked_by))
                    said = await self._decision(group, ("plan", "refuse"))
                    if said is None or "not in force" in said.reason:
                        record = await self.record(group)
                    elif said.action == "plan":
                        return said.reason.removeprefix("operator: ")
                    else:
                        raise RefusedError(f"{group}: {said.reason}")
        except TimeoutError:
            raise _unanswered(group, "", wait_seconds) from None

    async def pause(self, group: str, *, paused: bool, why: str, wait_seconds: float, everybody: bool) -> GroupRecord:
        """Have nothing move by itself, or allow it again. `everybody`: return when every switcher has said that it
        knows; else when the record says so, which holds for all who decide after that.

        Raises:
            RefusedError: a switcher said why not, or not all answered in time.
        """

        def wish(record: GroupRecord) -> PauseRequest:
            return PauseRequest(group, record.stamp, paused, why, self.asked_by)

        record = await self.record(group)
        if bool(record.paused) is not paused:
            record = await self._until(
                group, record, wish, lambda now: bool(now.paused) is paused, wait_seconds, final=True
            )
        self._tell(f"{group}: {f'paused by {record.paused}' if paused else 'resumed'}")
        if everybody:
            await self._acknowledged(record, wish, "pause" if paused else "resume", wait_seconds)
        return record

    async def drain(self, group: str, site: str, *, drained: bool, wait_seconds: float) -> GroupRecord:
        """Have `site` serve nobody, or allow it again; when it served the group, wait until another site does.

        Raises:
            RefusedError: a switcher said why not, or none answered in time. What was drained stays so.
        """

        def wish(record: GroupRecord) -> DrainRequest:
            return DrainRequest(group, record.stamp, site, drained, self.asked_by)

        def done(record: GroupRecord) -> bool:
            return (site in record.drained) is drained

        record = await self.record(group)
        if not done(record):
            record = await self._until(group, record, wish, done, wait_seconds, final=True)
        self._tell(f"{group}: {site} {'is drained' if drained else 'may serve again'}")
        if drained and record.active == site:
            record = await self._until(group, record, None, lambda now: now.active != site, wait_seconds)
            await self._serving(record, wait_seconds)
        return record

    # ------------------------------------------------------------------ answers

    async def _until(
        self,
        group: str,
        record: GroupRecord,
        wish: Callable[[GroupRecord], Wish] | None,
        done: Callable[[GroupRecord], bool],
        wait_seconds: float,
        *,
        final: bool = False,
    ) -> GroupRecord:
        """Ask until the record is as wished. `final`: the first refusal of this very wish ends it."""
        said = ""
        try:
            async with asyncio.timeout(wait_seconds):
                while not done(record):
                    if wish is not None:
                        self._bus.publish(wish(record))
                    heard = await self._answer(group, record)
                    if isinstance(heard, Decision):
                        said = heard.reason if heard.action == "refuse" else f"{heard.reason}, and has not answered"
                        if final and heard.action == "refuse" and "not in force" not in said:
                            raise RefusedError(f"{group}: {said}")
                    record = heard if isinstance(heard, GroupRecord) else await self.record(group)
        except TimeoutError:
            raise _unanswered(group, said, wait_seconds) from None
        return record

    async def _acknowledged(
        self, record: GroupRecord, wish: Callable[[GroupRecord], PauseRequest], action: str, wait_seconds: float
    ) -> None:
        """Return when the switcher of every gateway has said `action`; the wish, repeated, makes each say it again."""
        group, silent = record.group, set(record.gateways)
        try:
            async with asyncio.timeout(wait_seconds):
                while silent:
                    self._bus.publish(wish(record))
                    while silent and (said := await self._decision(group, (action, "refuse"))) is not None:
                        if said.action == action and said.site in silent:
                            silent.discard(said.site)
                            self._tell(f"{group}: the switcher of {said.site} knows")
                    record = await self.record(group)
        except TimeoutError:
            raise _unanswered(
                group, f"no word from the switcher of {', '.join(sorted(silent))}", wait_seconds
            ) from None

    async def _decision(self, group: str, actions: tuple[str, ...]) -> Decision | None:
        """The next such word of a switcher on what we asked; None if none came for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASK_AGAIN_SECONDS):
                while True:
                    match await self._heard.get():
                        case Decision() as said if said.group == group and said.action in actions:
                            if said.action != "refuse" or self._is_about_us(said.reason):
                                return said
        return None

    async def _answer(self, group: str, record: GroupRecord) -> GroupRecord | Decision | None:
        """The next record above `record`, or under it a refusal, or the word that the active was asked; None if nothing
        came for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASK_AGAIN_SECONDS):
                while True:
                    match await self._heard.get():
                        case Epoch(record=newer) if newer.group == group and newer.stamp > record.stamp:
                            return newer
                        case Decision() as said if said.group == group and said.action in ("refuse", "ask"):
                            if said.stamp == record.stamp and self._is_about_us(said.reason):
                                return said
        return None

    def _is_about_us(self, reason: str) -> bool:
        return reason.startswith(("operator", self.asked_by))

    async def _serving(self, record: GroupRecord, wait_seconds: float) -> None:
        group, decision = record.group, (record.stamp.epoch, record.stamp.decision_id)
        try:
            async with asyncio.timeout(wait_seconds):
                while True:
                    match await self._heard.get():
                        case Serving() as told if told.group == group and told.site == record.active:
                            if (told.stamp.epoch, told.stamp.decision_id) == decision:
                                self._tell(f"{group}: {record.active} serves")
                                return
                        case Epoch(record=newer) if (
                            newer.group == group and newer.stamp > record.stamp and newer.active != record.active
                        ):
                            why = "; ".join(newer.evidence) or str(newer.reason)
                            raise RefusedError(f"{group}: {record.active} could not take over: {why}")
        except TimeoutError:
            raise RefusedError(
                f"{group}: the record names {record.active}, and it has not said that it serves",
                "see its agent's log; `tunnelswitch status`",
            ) from None


def _unanswered(group: str, why: str, wait_seconds: float) -> RefusedError:
    return RefusedError(
        f"{group}: {why or 'no switcher has answered'}",
        f"waited {wait_seconds:g} s; `tunnelswitch status` shows who is there",
    )
