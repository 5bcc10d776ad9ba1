"""Many groups in one process: an event goes to the group that it is about, and time to those that wait for it.

What one event costs must not grow with the groups that it does not concern.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from tunnelswitch.core.actions import Action
from tunnelswitch.core.events import Committed
from tunnelswitch.core.facts import Epoch
from tunnelswitch.core.topology import Group


class Part(Protocol):
    """One group's machine."""

    @property
    def group(self) -> Group: ...

    def deadline(self) -> float | None:
        """What changes it is an event for this part, or time."""
        ...

    def take_actions(self) -> list[Action]: ...


P = TypeVar("P", bound=Part)


class Parts(Generic[P]):
    """The groups' machines of one process, in order."""

    def __init__(self, parts: Sequence[P]) -> None:
        self.everybody = tuple(parts)
        self._index = {part.group.name: index for index, part in enumerate(self.everybody)}
        self._of_service = {service.name: part.group.name for part in parts for service in part.group.services}
        self._due = [_time(part.deadline()) for part in self.everybody]

    def concerned(self, event: object) -> tuple[P, ...]:
        """Whom an event is for: the machine of its group or service, nobody if that is none of ours, else all."""
        if isinstance(event, (Epoch, Committed)):
            return self._of(event.record.group)
        group = getattr(event, "group", None)
        if isinstance(group, str):
            return self._of(group)
        service = getattr(event, "service", None)
        return self._of(self._of_service.get(service, "")) if isinstance(service, str) else self.everybody

    def _of(self, group: str) -> tuple[P, ...]:
        index = self._index.get(group)
        return () if index is None else (self.everybody[index],)

    def due(self, now: float) -> tuple[P, ...]:
        """Those for whom time alone may have changed something."""
        return tuple(part for part, due in zip(self.everybody, self._due, strict=True) if due <= now)

    def settle(self, touched: Iterable[P]) -> list[Action]:
        """After an event: the actions of those that it touched, in order. Their deadlines are asked for anew."""
        actions: list[Action] = []
        for part in touched:
            actions += part.take_actions()
            self._due[self._index[part.group.name]] = _time(part.deadline())
        return actions

    def deadline(self) -> float:
        """The first of all; infinity if nobody waits."""
        return min(self._due, default=float("inf"))


def _time(deadline: float | None) -> float:
    return float("inf") if deadline is None else deadline
