"""The switcher: stands beside one gateway, decides for every group that the gateway carries, and touches only that
gateway's OVSDB. Any switcher may commit; each applies at home."""

from __future__ import annotations

from collections.abc import Collection

from tunnelswitch.core.actions import Action
from tunnelswitch.core.deciding import GroupDecider
from tunnelswitch.core.events import LoopLate
from tunnelswitch.core.facts import Heartbeat
from tunnelswitch.core.freshness import Freshness
from tunnelswitch.core.parting import Parts
from tunnelswitch.core.quorum import Ballots


class Switcher:
    """All groups of one gateway.

    Args:
        sites: whose heartbeats count; those of others take no memory.
        age_max_seconds: heartbeats delayed by more are dropped.
    """

    def __init__(self, deciders: tuple[GroupDecider, ...], sites: Collection[str], *, age_max_seconds: float) -> None:
        self.deciders = deciders
        self._sites = frozenset(sites)
        self.stale_messages = 0
        self._freshness = Freshness(age_max_seconds)
        self._parts = Parts(deciders)
        self._ballots = Ballots()
        self._actions: list[Action] = []

    def receive(self, event: object, now: float) -> None:
        if isinstance(event, Heartbeat):
            if event.site not in self._sites:
                return
            stale = self._freshness.check(event.site, event.incarnation, event.sequence, event.sent_at_monotonic, now)
            if stale is not None:
                self.stale_messages += 1
                return
            # Indexed once for all groups.
            event = self._ballots.take(event, now)
        if isinstance(event, LoopLate):
            return
        concerned = self._parts.concerned(event)
        for decider in concerned:
            decider.receive(event, now)
        self._actions += self._parts.settle(concerned)

    def deadline(self) -> float:
        return self._parts.deadline()

    def expire(self, now: float) -> None:
        due = self._parts.due(now)
        for decider in due:
            decider.decide(now)
        self._actions += self._parts.settle(due)

    def take_actions(self) -> tuple[Action, ...]:
        actions, self._actions = tuple(self._actions), []
        return actions
