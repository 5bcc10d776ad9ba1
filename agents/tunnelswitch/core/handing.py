"""Handing over as planned, with nothing lost: the standby has all that clients saw before anybody moves (PROTOCOL R6).

First a checkpoint while clients are served: it shows that the standby takes them, and leaves little for the last one.
Then the gate is closed for good under the stamp, and beside it the last one is begun: the copy stands still for longer
than the gate takes. It is the last if it holds all that the copy did until after the gate was closed, so that no client
can have seen what is not in it; else there is one more. Only then the proof.

If the first does not come, nothing was closed, and the site serves on. If the last does not come, the site says that it
keeps itself closed, and the switcher re-arms it under a new minor (R4).
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
# Open vSwitch's cached flows go on for up to 2.4 ms after it says that it follows (docs/dataplane.md).
TAIL_SECONDS = 0.003
# Clients wait meanwhile: rather give up, and serve on. Where checkpoints are rarer four of their periods are given: not
# every driver can make one begin at once, and the first may have begun before the gate was closed.
LAST_SECONDS = 0.4
LAST_PERIODS = 4
# A driver keeps its deadline itself; so much later its answer is no longer waited for.
ABANDON_SECONDS = 0.1


class Phase(Enum):
    """How far it has got."""

    IDLE = "idle"
    PREPARING = "preparing"
    CLOSING = "closing, and the last checkpoint"
    DONE = "done"
    FAILED = "failed"


class HandingOver:
    """Of one group, under one stamp."""

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self._give_up_at: float | None = None
        self._closed_at: float | None = None
        self._stamp: Stamp | None = None
        self._since = 0.0
        self._request = 0
        self._waiting: dict[str, str] = {}
        self._taken: dict[str, CheckpointTaken] = {}
        self._refusal = ""
        self._actions: list[TakeCheckpoint] = []

    def begin(self, stamp: Stamp, since: float, instances: Iterable[Instance], now: float) -> None:
        """Asked to, under the stamp that has been in force `since`; asked again, it goes on."""
        if self._stamp == stamp and self.phase is not Phase.IDLE:
            return
        self._stamp, self._since = stamp, since
        self._enter(Phase.PREPARING, now + PREPARE_SECONDS)
        self._ask(instances, PREPARE_SECONDS)

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
        self._taken[event.service] = event

    def step(self, stamp: Stamp, instances: Iterable[Instance], now: float, *, closed: bool) -> bool:
        """Go on under `stamp`, the one in force. Returns whether the gate must be closed for good."""
        if self._stamp != stamp:
            self.drop()
            return False
        if self._give_up_at is not None and now >= self._give_up_at:
            waits = self.phase is Phase.PREPARING or self._closed_at is not None
            self._refuse("no checkpoint in time" if waits else "the gate does not close in time")
        if self.phase is Phase.PREPARING and not self._waiting:
            if why := self._against(instances):
                self._refuse(why)
            else:
                self._enter(Phase.CLOSING, now + _last_seconds(instances))
                self._ask_for_last(instances, now)
        if self.phase is Phase.CLOSING and closed:
            if self._closed_at is None:
                self._closed_at = now
            if not self._waiting:
                self._conclude(instances, now)
        return self.phase in (Phase.CLOSING, Phase.DONE, Phase.FAILED)

    def _conclude(self, instances: Iterable[Instance], now: float) -> None:
        """All are taken and the gate is closed: are they the last, or is there to be one more?"""
        assert self._closed_at is not None
        silent_at = self._closed_at + TAIL_SECONDS
        if all(taken.holds_until >= silent_at for taken in self._taken.values()):
            self.phase, self._give_up_at = Phase.DONE, None
        elif now >= silent_at:
            self._ask_for_last(instances, now)

    def _enter(self, phase: Phase, until: float) -> None:
        self.phase, self._closed_at, self._give_up_at = phase, None, until + ABANDON_SECONDS

    def _ask_for_last(self, instances: Iterable[Instance], now: float) -> None:
        assert self._give_up_at is not None
        self._ask(instances, self._give_up_at - ABANDON_SECONDS - now)

    def _ask(self, instances: Iterable[Instance], seconds: float) -> None:
        urgent = self.phase is Phase.CLOSING
        self._request += 1
        self._waiting, self._taken = {}, {}
        if why := self._against(instances):
            self._refuse(why)
            return
        for instance in instances:
            service, run = instance.seen.service, instance.seen.run
            self._waiting[service] = run
            self._actions.append(TakeCheckpoint(service, run, self._request, urgent, seconds))

    def _against(self, instances: Iterable[Instance]) -> str:
        """Why no checkpoint is worth asking for, or nothing."""
        for instance in instances:
            seen = instance.seen
            if seen.role != "active" or seen.protection is not Protection.PROTECTED:
                return f"{seen.service} is {seen.protection}"
            if instance.may_be_another(self._since):
                return f"the standby of {seen.service} may be another one than the record says"
        return ""

    def _refuse(self, why: str) -> None:
        """While nothing is closed the next wish begins anew; else this stamp is spent."""
        closed = self.phase not in (Phase.IDLE, Phase.PREPARING)
        self.phase = Phase.FAILED if closed else Phase.IDLE
        self._give_up_at, self._waiting, self._refusal = None, {}, why

    def due_at(self) -> float | None:
        """When time alone may change something."""
        if self.phase is Phase.CLOSING and self._closed_at is not None and not self._waiting:
            return self._closed_at + TAIL_SECONDS
        return self._give_up_at

    # ------------------------------------------------------------------ out

    def may_prove(self, stamp: Stamp) -> bool:
        """May a closed gate be told of as a proof? Not before the last checkpoint, nor without it."""
        return self._stamp != stamp or self.phase in (Phase.IDLE, Phase.DONE)

    def is_under_way(self, stamp: Stamp) -> bool:
        """Is the gate closed, or about to be, with the outcome open?"""
        return self._stamp == stamp and self.phase is Phase.CLOSING

    def final_checkpoint(self, stamp: Stamp, service: str) -> int:
        """The number of the last checkpoint; 0 if there was none."""
        done = self._stamp == stamp and self.phase is Phase.DONE and service in self._taken
        return self._taken[service].sequence if done else 0

    def take_refusal(self) -> str:
        """Why it came to nothing, once."""
        refusal, self._refusal = self._refusal, ""
        return refusal

    def take_actions(self) -> list[TakeCheckpoint]:
        actions, self._actions = self._actions, []
        return actions


def _last_seconds(instances: Iterable[Instance]) -> float:
    """How long the gate may take to close, and the last checkpoint to come."""
    period = max((instance.checkpoint_period_seconds for instance in instances), default=0.0)
    return min(max(LAST_SECONDS, LAST_PERIODS * period), PREPARE_SECONDS)
