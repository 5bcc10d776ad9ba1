"""Planted bugs of the parts around the core: what an adapter, OVSDB or the store would do if it were wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from tunnelswitch.core.actions import ApplyTunnels
from tunnelswitch_lab.simulator.hypervisor import Hypervisor
from tunnelswitch_lab.simulator.store import SimulatedStore
from tunnelswitch_lab.simulator.switches import Switch

_take = Switch._take


def _guarded_by(passes: Callable[[Any, ApplyTunnels], bool]) -> Callable[..., None]:
    """OVSDB takes the transaction when `passes(stored, action)`."""

    def take(self: Switch, action: ApplyTunnels, *rest: Any) -> None:
        stored = self.stored.get(action.group)
        expected = stored if passes(stored, action) else object()
        _take(self, _with(action, expected), *rest)

    return take


def _with(action: ApplyTunnels, expected: Any) -> ApplyTunnels:
    return ApplyTunnels(action.group, action.stamp, expected, action.add, action.remove, action.deadline_seconds)


def _applied_at_commit(self: Switch, told: Callable[[], None]) -> None:
    self._waiting.append(lambda: None)
    self._timeline.after(self.follow_seconds, self._follow)
    told()


def _put(self: SimulatedStore, site: str, record: Any, revision: int, answer: Any) -> None:
    _, last = self.last(record.group)
    _commit(self, site, record, last, answer)


_commit = SimulatedStore._commit


def _direct_get(self: SimulatedStore, site: str, group: str, answer: Any) -> None:
    """A replica that has not heard the last writes yet."""
    if self.up and site not in self._network.unpowered:
        written = self.history[group]
        behind = site != self.leader and self._random.random() < 0.7
        answer.set(self._random.choice(written) if behind else written[-1])


def _resumed(self: Hypervisor, site: str) -> bool:
    """A copy that had the role goes on as a standby, as if it were in sync."""
    copy, other = self.copies[site], self.other(site)
    if copy.alive or other.role != "active":
        return False
    copy.role, copy.peer_lost, other.peer_lost = "standby", False, False
    self.say()
    return True


PARTS: dict[str, Callable[[], Any]] = {
    "the guard is missing": lambda: patch.object(Switch, "_take", _guarded_by(lambda stored, action: True)),
    "the guard is a less-than": lambda: patch.object(
        Switch, "_take", _guarded_by(lambda stored, action: stored is None or stored <= action.stamp)
    ),
    "the guard is placed last": lambda: patch.object(
        Switch, "_take", _guarded_by(lambda stored, action: action.stamp == action.expected)
    ),
    "a switch is reported when OVSDB has it": lambda: patch.object(Switch, "_follow_later", _applied_at_commit),
    "put instead of compare-and-set": lambda: patch.object(SimulatedStore, "_commit", _put),
    "reads are not confirmed": lambda: patch.object(SimulatedStore, "_read", _direct_get),
    "an old copy resumes as a standby": lambda: patch.object(Hypervisor, "revive", _resumed),
}
