"""Handing over as planned, with nothing lost: the standby has all that clients saw before anybody moves (PROTOCOL R6).

First a checkpoint while clients are served: it shows that the standby takes them, and leaves little for the last one.
Then the gate is closed for good under the stamp. Then one more checkpoint, asked for after that: no client can have
seen what is not in it. Only then the proof. If the first does not come, nothing was closed, and the site serves on. If
the last does not come, the site says that it keeps itself closed, and the switcher re-arms it under a new minor (R4).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from tunnelswitch.core.actions import TakeCheckpoint
from tunnelswitch.core.copies import Instance
from tunnelswitch.core.events import CheckpointFailed, CheckpointTaken
from tunnelswitch.core.facts import Protection
from tunnelswitch.core.stamp import Stamp

PREPARE_SECONDS = 2.0
CLOSE_SECONDS = 1.0
# Open vSwitch's cached flows go on for up to 2.4 ms after it says that it follows (docs/dataplane.md).
TAIL_SECONDS = 0.003
# Clients wait meanwhile: rather give up, and serve on.
LAST_SECONDS = 0.4
# A driver keeps the deadline itself; past this its answer is no longer waited for.
ABANDON_FACTOR = 1.5


class Phase(Enum):
    """How far it has got."""

    IDLE = "idle"
    PREPARING = "preparing"
    CLOSING = "closing"
    LAST = "last checkpoint"
    DONE = "done"
    FAILED = "failed"


class HandingOver:
    """Of one group, under one stamp."""

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self._give_up_at: float | None = None
        self._closed_at: float | None = None
        self._stamp: Stamp | None = None
        self._request = 0
        self._waiting: dict[str, str] = {}
        self._final: dict[str, int] = {}
        self._refusal = ""
        self._actions: list[TakeCheckpoint] = []

    def begin(self, stamp: Stamp, instances: Iterable[Instance], now: float) -> None:
        """Asked to, under the stamp in force; asked again, it goes on."""
        if self._stamp == stamp and self.phase is not Phase.IDLE:
            return
        self._stamp, self._final = stamp, {}
        self._ask(Phase.PREPARING, instances, PREPARE_SECONDS, now)

    def drop(self) -> None:
        """Clients do not get through: whoever closes now does it at once."""
        self.phase, self._give_up_at, self._waiting = Phase.IDLE, None, {}

    def heard(self, event: CheckpointTaken | CheckpointFailed) -> None:
        """A driver's answer."""
        if event.request != self._request or event.service not in self._waiting:
            return
        if isinstance(event, CheckpointFailed):
            self._refuse(f"no checkpoint of {event.service}: {event.error}")
            return
        del self._waiting[event.service]
        self._final[event.service] = event.sequence

    def step(self, stamp: Stamp, instances: Iterable[Instance], now: float, *, closed: bool) -> bool:
        """Go on under `stamp`, the one in force. Returns whether the gate must be closed for good."""
        if self._stamp != stamp:
            self.drop()
            return False
        if self._give_up_at is not None and now >= self._give_up_at:
            what = "the gate does not close" if self.phase is Phase.CLOSING else "no checkpoint"
            self._refuse(f"{what} in time")
        if self.phase is Phase.PREPARING and not self._waiting:
            self.phase, self._give_up_at, self._closed_at = Phase.CLOSING, now + CLOSE_SECONDS, None
        if self.phase is Phase.CLOSING and closed:
            self._closed_at = now if self._closed_at is None else self._closed_at
            if now - self._closed_at >= TAIL_SECONDS:
                self._ask(Phase.LAST, instances, LAST_SECONDS, now)
        if self.phase is Phase.LAST and not self._waiting:
            self.phase, self._give_up_at = Phase.DONE, None
        return self.phase not in (Phase.IDLE, Phase.PREPARING)

    def _ask(self, phase: Phase, instances: Iterable[Instance], deadline_seconds: float, now: float) -> None:
        self.phase, self._give_up_at = phase, now + ABANDON_FACTOR * deadline_seconds
        self._request += 1
        self._waiting = {}
        for instance in instances:
            seen = instance.seen
            if seen.role != "active" or seen.protection is not Protection.PROTECTED:
                self._refuse(f"{seen.service} is {seen.protection}")
                return
            self._waiting[seen.service] = seen.run
            self._actions.append(TakeCheckpoint(seen.service, seen.run, self._request, deadline_seconds))

    def _refuse(self, why: str) -> None:
        """While nothing is closed the next wish begins anew; else this stamp is spent."""
        closed = self.phase not in (Phase.IDLE, Phase.PREPARING)
        self.phase = Phase.FAILED if closed else Phase.IDLE
        self._give_up_at, self._waiting, self._refusal = None, {}, why

    def due_at(self) -> float | None:
        """When time alone may change something."""
        if self.phase is Phase.CLOSING and self._closed_at is not None:
            return self._closed_at + TAIL_SECONDS
        return self._give_up_at

    # ------------------------------------------------------------------ out

    def may_prove(self, stamp: Stamp) -> bool:
        """May a closed gate be told of as a proof? Not before the last checkpoint, nor without it."""
        return self._stamp != stamp or self.phase in (Phase.IDLE, Phase.DONE)

    def is_under_way(self, stamp: Stamp) -> bool:
        """Is the gate closed, or about to be, with the outcome open?"""
        return self._stamp == stamp and self.phase in (Phase.CLOSING, Phase.LAST)

    def final_checkpoint(self, stamp: Stamp, service: str) -> int:
        """The number of the last checkpoint; 0 if there was none."""
        return self._final.get(service, 0) if self._stamp == stamp and self.phase is Phase.DONE else 0

    def take_refusal(self) -> str:
        """Why it came to nothing, once."""
        refusal, self._refusal = self._refusal, ""
        return refusal

    def take_actions(self) -> list[TakeCheckpoint]:
        actions, self._actions = self._actions, []
        return actions
