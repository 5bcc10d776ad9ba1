"""An event reaches the groups that it is about, and no others; time reaches those that wait for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tunnelswitch.core import events, facts
from tunnelswitch.core.actions import Action, PinLeader
from tunnelswitch.core.parting import Parts
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import Group, Service

STAMP = Stamp(1, "a")


class Part:
    """A group's machine that waits until `due`."""

    def __init__(self, name: str, due: float | None) -> None:
        service = Service(f"{name}-pbx", "br-svc", 2, 3)
        self.group = Group(name, "primary", "secondary", ("gateway",), ("gateway",), (service,))
        self.due = due

    def deadline(self) -> float | None:
        return self.due

    def take_actions(self) -> list[Action]:
        return [PinLeader((self.group.name,))]


def record(group: str) -> facts.GroupRecord:
    return facts.GroupRecord(group, STAMP, "primary", "primary", False, facts.Reason.INIT, (), ())


@pytest.fixture
def parts() -> Parts[Part]:
    return Parts((Part("a", 5.0), Part("b", 3.0), Part("c", None)))


@pytest.mark.parametrize(
    "about",
    [
        lambda group: events.RecordRead(group, record(group), 1),
        lambda group: events.Committed(record(group), 1),
        lambda group: events.SwitchFailed(group, "no"),
        lambda group: facts.Epoch(record(group)),
        lambda group: facts.PromoteFailed("secondary", group, STAMP, "no"),
        lambda group: events.RunExited(f"{group}-pbx", "r1"),
    ],
)
def test_what_is_about_a_group_reaches_that_group_alone(parts: Parts[Part], about: Callable[[str], object]) -> None:
    assert [part.group.name for part in parts.concerned(about("b"))] == ["b"]
    assert parts.concerned(about("unknown")) == ()


@pytest.mark.parametrize(
    "event", [events.DataPlaneSeen(), events.DataPlaneLost("away"), events.PathChanged("primary", facts.Path.DOWN)]
)
def test_what_is_about_the_site_reaches_every_group(parts: Parts[Part], event: object) -> None:
    assert [part.group.name for part in parts.concerned(event)] == ["a", "b", "c"]


def test_time_reaches_those_that_wait_for_it(parts: Parts[Part]) -> None:
    assert parts.deadline() == 3.0
    (due,) = parts.due(4.0)
    assert due.group.name == "b"
    due.due = 9.0
    assert parts.settle((due,)) == [PinLeader(("b",))]
    assert parts.deadline() == 5.0


def test_nobody_waits_where_there_is_nobody() -> None:
    assert Parts[Part](()).deadline() == float("inf")
