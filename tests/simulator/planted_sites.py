"""Planted bugs of marks, of gateways and witnesses, and of what operators ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from tunnelswitch.core.certificate import Certificate
from tunnelswitch.core.deciding import GroupDecider
from tunnelswitch.core.evidence import Evidence, Verdict
from tunnelswitch.core.facts import MoveRequest, Reason
from tunnelswitch.core.following import Follower
from tunnelswitch.core.gate import Gate
from tunnelswitch.core.member import Member
from tunnelswitch_lab.simulator.switches import Switch


def _seen_removed(self: Gate, now: float, real: Any = Gate.step) -> Any:
    action = real(self, now)
    seen = [] if action is None else [end for end in action.remove if end.interface in self.present]
    return action and replace(action, remove=tuple(seen))


def _undrained(self: GroupDecider, *args: Any, real: Any = GroupDecider._policy_against) -> list[str]:
    return [why for why in real(self, *args) if "is drained" not in why]


def _toggle(self: Evidence, record: Any) -> Verdict | None:
    """A wish is for the other site, whatever it named and whenever it was made."""
    return Verdict(Reason.OPERATOR, ("somebody asks",), consent_needed=True) if self.wish is not None else None


def _any_wish(self: GroupDecider, event: Any, now: float, real: Any = GroupDecider._hear_fact) -> None:
    if isinstance(event, MoveRequest):
        self.evidence.wish = event
    real(self, event, now)


def _toggling() -> contextlib.ExitStack:
    both = contextlib.ExitStack()
    both.enter_context(patch.object(Evidence, "_wished", _toggle))
    both.enter_context(patch.object(GroupDecider, "_hear_fact", _any_wish))
    return both


def _telling_memory(self: Member, now: float, real: Any = Member._heartbeat) -> Any:
    """What a site has heard of, whether it has written it down or not."""
    written = self.marks
    self.marks = lambda: {name: record.stamp for name, record in self.records.items()}
    beat = real(self, now)
    self.marks = written
    return beat


SITES: dict[str, Callable[[], Any]] = {
    "exposed before a quorum holds the decision": lambda: patch.object(Certificate, "is_marked", lambda *_: True),
    "a mark is told before it is durable": lambda: patch.object(Member, "_heartbeat", _telling_memory),
    "only the switcher applies": lambda: patch.object(Follower, "act", lambda *_: None),
    "only what was seen is removed": lambda: patch.object(Gate, "step", _seen_removed),
    "a site that boots is not dark": lambda: patch.object(Switch, "darken", lambda self: None),
    "a drained site is moved to": lambda: patch.object(GroupDecider, "_policy_against", _undrained),
    "an operator's wish is a toggle": _toggling,
}
