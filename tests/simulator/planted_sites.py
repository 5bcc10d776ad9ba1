"""Planted bugs of marks, of gateways and witnesses, and of what operators ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from tunnelswitch.core import concluding, hosting
from tunnelswitch.core.alone import Alone
from tunnelswitch.core.certificate import Certificate
from tunnelswitch.core.deciding import GroupDecider
from tunnelswitch.core.evidence import Evidence, Verdict
from tunnelswitch.core.facts import Bus, MoveRequest, Reason
from tunnelswitch.core.following import Follower
from tunnelswitch.core.hosting import HostedGroup
from tunnelswitch.core.keeping import RecordKeeper
from tunnelswitch.core.leftovers import Leftovers
from tunnelswitch.core.marks import Marks
from tunnelswitch.core.member import Member
from tunnelswitch.core.policy import Policy
from tunnelswitch.core.stamp import Stamp
from tunnelswitch_lab.simulator.switches import Switch


def _undrained(self: Policy, *args: Any, real: Any = Policy.against) -> list[str]:
    return [why for why in real(self, *args) if "is drained" not in why]


def _toggle(seen: Evidence, record: Any, now: float) -> Verdict | None:
    """A wish is for the other site, whatever it named and whenever it was made."""
    return Verdict(Reason.OPERATOR, ("somebody asks",), consent_needed=True) if seen.wish is not None else None


def _any_wish(self: GroupDecider, event: Any, now: float, real: Any = GroupDecider._hear_fact) -> None:
    if isinstance(event, MoveRequest):
        self.evidence.wish = event
    real(self, event, now)


def _toggling() -> contextlib.ExitStack:
    both = contextlib.ExitStack()
    both.enter_context(patch.object(concluding, "_wished", _toggle))
    both.enter_context(patch.object(GroupDecider, "_hear_fact", _any_wish))
    return both


def _telling_memory(self: Member, now: float, real: Any = Member._heartbeat) -> Any:
    """What a site has heard of, whether it has written it down or not."""
    written = self.marks
    self.marks = lambda: {name: record.stamp for name, record in self.records.items()}
    beat = real(self, now)
    self.marks = written
    return beat


def _unraised(self: Certificate, record: Any, real: Any = Certificate.is_marked) -> bool:
    """Nobody asks whether somebody holds a higher mark."""
    marks, self._marks = self._marks, {site: mark for site, mark in self._marks.items() if mark <= record.stamp}
    marked = bool(real(self, record))
    self._marks = marks
    return marked


def _heard(self: Member, voter: str, now: float, real: Any = Member.in_touch_at) -> float:
    """Whoever is heard is taken to hear us."""
    alive = voter in self.detector and self.detector.observation(voter, now).bus is Bus.ALIVE
    return now if alive else float(real(self, voter, now))


def _last_believed(self: Member, record: Any, now: float) -> bool:
    """Whatever was told last, whether its stamp is higher or not."""
    known = self.records.get(record.group)
    if record.group not in self.groups or (known is not None and record.stamp == known.stamp):
        return False
    self.records[record.group], self._record_since[record.group] = record, now
    return True


def _unseparated(self: GroupDecider, record: Any, real: Any = GroupDecider._next_stamp) -> Stamp:
    """Nothing tells two decisions of one epoch apart."""
    return replace(real(self, record), decision_id="d")


def _believed_landed(self: RecordKeeper, real: Any = RecordKeeper.unknown) -> None:
    """A commit without an answer is taken as done."""
    pending = self._pending
    real(self)
    if pending is not None and self.revision is not None:
        self._pending = None
        self.record, self.revision = pending.record, self.revision + 1


def _destroy_at_once(self: HostedGroup, record: Any, now: float, real: Any = HostedGroup._follow) -> None:
    self._peer_serving = record.stamp
    real(self, record, now)


def _ended_at_once(self: Leftovers, instance: Any, record: Any, now: float) -> bool:
    return instance.left_at is not None and instance.seen.role == "standby"


def _tries_on(self: HostedGroup, instance: Any, event: Any, now: float) -> None:
    """A site that says that it cannot take over does not close itself, and tries again."""
    record = self.record
    if record and record.active == self.site and instance.promote_attempts >= hosting.PROMOTE_ATTEMPTS_MAX:
        instance.promote_attempts, instance.busy_until = 0, now + hosting.PROMOTE_ROUND_SECONDS
        self._tell_failed(record, event.error)


SITES: dict[str, Callable[[], Any]] = {
    "exposed before a quorum holds the decision": lambda: patch.object(Certificate, "is_marked", lambda *_: True),
    "a mark is told before it is durable": lambda: patch.object(Member, "_heartbeat", _telling_memory),
    "only the switcher applies": lambda: patch.object(Follower, "act", lambda *_: None),
    "a site that boots is not dark": lambda: patch.object(Switch, "darken", lambda self: None),
    "a higher mark is not looked at": lambda: patch.object(Certificate, "is_marked", _unraised),
    "who is heard is in touch": lambda: patch.object(Member, "in_touch_at", _heard),
    "an old word that nobody stands by is believed": lambda: patch.object(
        Alone, "is_known", lambda self, record: not record.in_sync
    ),
    "a lower stamp is believed": lambda: patch.object(Member, "learn", _last_believed),
    "stamps do not exceed marks": lambda: patch.object(
        Marks, "next_epoch", lambda self, record: record.stamp.epoch + 1
    ),
    "the decision is left out of the stamp": lambda: patch.object(GroupDecider, "_next_stamp", _unseparated),
    "a commit without an answer is taken as done": lambda: patch.object(RecordKeeper, "unknown", _believed_landed),
    "the old copy is destroyed before the new one serves": lambda: patch.object(
        HostedGroup, "_follow", _destroy_at_once
    ),
    "a standby that was left is ended at once": lambda: patch.object(Leftovers, "has", _ended_at_once),
    "who could not take over tries again under the same stamp": lambda: patch.object(
        HostedGroup, "_promotion_failed", _tries_on
    ),
    "a drained site is moved to": lambda: patch.object(Policy, "against", _undrained),
    "an operator's wish is a toggle": _toggling,
}
