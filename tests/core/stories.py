"""What the stories here are told with: a simulated deployment that keeps what was said.

The simulator judges its invariants after every step, so no story has to say that clients never reach two copies.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

from tunnelswitch.core.facts import Decision, MoveRequest, Reason
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import Group
from tunnelswitch_lab.simulator.hypervisor import Hypervisor
from tunnelswitch_lab.simulator.names import switcher_at
from tunnelswitch_lab.simulator.setup import GROUP, Setup
from tunnelswitch_lab.simulator.world import World

T = TypeVar("T")
SETTLE_SECONDS = 0.5
SERVICE = GROUP.services[0].name
SWITCHER = switcher_at("gateway")
TWO_GATEWAYS = replace(GROUP, gateways=("gateway", "branch"))


class Story(World):
    """A deployment of one group with one service, and what can be asked of it afterwards."""

    def __init__(self, group: Group = GROUP, **options: Any) -> None:
        self._heard: list[tuple[float, object]] = []
        super().__init__(Setup(group=group), told=lambda now, who, what: self._heard.append((now, what)), **options)

    @property
    def service(self) -> Hypervisor:
        """Both copies of the service, and what drives them."""
        return self.hypervisors[SERVICE]

    def machine(self, name: str) -> Any:
        """The decisions of a process as it runs now."""
        return self.processes[name].machine

    def kill(self, *names: str) -> None:
        for name in names:
            self.processes[name].kill()

    def ask(self, target: str, stamp: Stamp | None = None) -> None:
        """An operator asks that `target` serve, under the stamp in force if no other is given."""
        request = MoveRequest(self.group.name, stamp or self.record.stamp, target, "alice")
        self.bus.publish("operator", "gateway", request)

    @property
    def moves(self) -> list[tuple[str, Reason]]:
        """Where the service went from one site to the other, and why."""
        records = [record for record, _ in self.store.history[self.group.name]]
        return [(after.active, after.reason) for before, after in pairwise(records) if after.active != before.active]

    def said(self, kind: type[T], since: float = 0.0) -> list[T]:
        """What was published of this kind, by anybody."""
        return [what for at, what in self._heard if isinstance(what, kind) and at >= since]

    def reasons(self, action: str, since: float = 0.0) -> str:
        """Why switchers did, or refused, what `action` names."""
        return " | ".join(decision.reason for decision in self.said(Decision, since) if decision.action == action)

    def answered_since(self, since: float) -> list[set[str]]:
        """Who answered clients one after the other, beginning with who did at that time."""
        before = [sites for at, sites in self.answered_by if at <= since][-1:]
        return [set(sites) for sites in (*before, *(sites for at, sites in self.answered_by if at > since))]

    def downtime(self, since: float) -> float:
        """The longest time without any answer since then, in seconds."""
        changes = [*self.answered_by, (self.now, frozenset[str]())]
        gaps = [until - max(at, since) for (at, sites), (until, _) in pairwise(changes) if not sites]
        return max(gaps, default=0.0)


def in_good_times(group: Group = GROUP) -> Story:
    """All started, the standby in sync, clients answered by the primary."""
    story = Story(group)
    story.start()
    story.run(SETTLE_SECONDS)
    assert story.record.in_sync, story.said(Decision)
    assert story.answering_copies() == {"primary"}
    return story
