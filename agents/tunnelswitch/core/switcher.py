"""The switcher: stands beside one gateway, decides for every group that the gateway carries, and touches only that
gateway's OVSDB. Any switcher may commit; each applies at home."""

from __future__ import annotations

from collections.abc import Collection

from tunnelswitch.core.actions import Action
from tunnelswitch.core.deciding import GroupDecider
from tunnelswitch.core.events import LoopLate
from tunnelswitch.core.facts import Heartbeat
from tunnelswitch.core.freshness import Freshness


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
        self._actions: list[Action] = []

    def receive(self, event: object, now: float) -> None:
        if isinstance(event, Heartbeat):
            if event.site not in self._sites:
                return
            stale = self._freshness.check(event.site, event.incarnation, event.sequence, event.sent_at_monotonic, now)
            if stale is not None:
                self.stale_messages += 1
                return
        if isinstance(event, LoopLate):
            return
        for decider in self.deciders:
            decider.receive(event, now)
        self._collect()

    def deadline(self) -> float | None:
        return min((decider.deadline() for decider in self.deciders), default=None)

    def expire(self, now: float) -> None:
        for decider in self.deciders:
            decider.decide(now)
        self._collect()

    def _collect(self) -> None:
        for decider in self.deciders:
            self._actions.extend(decider.take_actions())

    def take_actions(self) -> tuple[Action, ...]:
        actions, self._actions = tuple(self._actions), []
        return actions
