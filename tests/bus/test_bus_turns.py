"""Many services in heartbeats: what is heard is what would have been said, or nothing."""

from __future__ import annotations

import dataclasses
import itertools

from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch.bus import codec
from tunnelswitch.bus.turns import AGES, TURN_SECONDS, Listener, Teller
from tunnelswitch.core.facts import SERVICES_EVERY_BEAT_MAX, Heartbeat, Protection, ServiceStatus

INTERVAL_SECONDS = 0.05
BEATS_OF_A_TURN = round(TURN_SECONDS / INTERVAL_SECONDS)


def status(service: int, group: int, **more: object) -> ServiceStatus:
    plain = ServiceStatus(
        f"s{service}", f"g{group}", "r1", "standby", Protection.PROTECTED, in_sync=True, gate_open=False
    )
    return dataclasses.replace(plain, **more)


class Site:
    """A publisher whose services change as a test says."""

    def __init__(self, groups: int = 10, of: int = 3, incarnation: str = "first") -> None:
        self.services = tuple(status(group * of + n, group) for group in range(groups) for n in range(of))
        self.incarnation = incarnation
        self.teller = Teller()
        self._sequence = itertools.count(1)

    def change(self, index: int, **more: object) -> None:
        changed = list(self.services)
        changed[index] = dataclasses.replace(changed[index], **more)
        self.services = tuple(changed)

    def whole(self) -> Heartbeat:
        sequence = next(self._sequence)
        sent_at = sequence * INTERVAL_SECONDS
        return Heartbeat("here", self.incarnation, sequence, sent_at, INTERVAL_SECONDS, services=self.services)

    def beat(self) -> tuple[Heartbeat, Heartbeat]:
        """What is meant, and what is sent."""
        whole = self.whole()
        return whole, self.teller.shorten(whole)


def by_group(beat: Heartbeat) -> dict[str, list[ServiceStatus]]:
    groups: dict[str, list[ServiceStatus]] = {}
    for one in beat.services:
        groups.setdefault(one.group, []).append(dataclasses.replace(one, **dict.fromkeys(AGES, 0)))
    return groups


def test_few_services_are_all_in_every_heartbeat() -> None:
    site = Site(groups=SERVICES_EVERY_BEAT_MAX, of=1)
    listener = Listener()
    for _ in range(3):
        whole, sent = site.beat()
        assert sent is whole
        assert listener.complete(sent) is sent
        site.change(0, checkpoint_age_seconds=0.5)


def test_a_heartbeat_without_news_is_small_and_what_is_heard_is_the_same_object() -> None:
    site, listener = Site(groups=40, of=25), Listener()
    whole, first = site.beat()
    assert len(first.services) == 1000
    heard = listener.complete(first).services
    assert heard == whole.services
    for _ in range(2 * BEATS_OF_A_TURN):
        _, sent = site.beat()
        assert len(codec.encode(sent, "here/agent", "1", 0.0)) < 20_000
        assert listener.complete(sent).services is heard


def test_a_change_is_in_the_very_next_heartbeat_and_ages_come_in_turns() -> None:
    site, listener = Site(), Listener()
    listener.complete(site.beat()[1])
    site.change(7, role="active", gate_open=True)
    whole, sent = site.beat()
    assert by_group(listener.complete(sent)) == by_group(whole)
    site.change(8, checkpoint_sequence=5, checkpoint_age_seconds=0.3, progress=0.5)
    for _ in range(BEATS_OF_A_TURN):
        heard = listener.complete(site.beat()[1])
    assert {one.service: one for one in heard.services} == {one.service: one for one in site.services}


def test_who_comes_late_has_heard_all_after_a_turn() -> None:
    site, listener = Site(), Listener()
    site.beat()
    first = listener.complete(site.beat()[1])
    assert 0 < len(first.services) < len(site.services), "it counts as a heartbeat, and says a part"
    for _ in range(BEATS_OF_A_TURN):
        whole, sent = site.beat()
        heard = listener.complete(sent)
    assert by_group(heard) == by_group(whole)


def test_a_lost_heartbeat_costs_nothing_if_it_brought_no_news_and_else_what_was_known() -> None:
    site, listener = Site(), Listener()
    listener.complete(site.beat()[1])
    site.beat()
    whole, sent = site.beat()
    assert by_group(listener.complete(sent)) == by_group(whole)
    site.change(0, role="active")
    site.beat()
    whole, sent = site.beat()
    heard = by_group(listener.complete(sent))
    assert len(heard) < len(by_group(whole))
    assert heard.items() <= by_group(whole).items()
    site.teller.lost()
    whole, sent = site.beat()
    assert by_group(listener.complete(sent)) == by_group(whole), "a sender that knows of a loss says all at once"


def test_a_restarted_site_is_another_and_the_words_of_the_old_process_change_nothing_of_it() -> None:
    old, new, listener = Site(), Site(incarnation="second"), Listener()
    listener.complete(old.beat()[1])
    old.change(0, role="active", gate_open=True)
    late = old.beat()[1]
    whole, sent = new.beat()
    assert by_group(listener.complete(sent)) == by_group(whole)
    listener.complete(late)
    whole, sent = new.beat()
    assert by_group(listener.complete(sent)) == by_group(whole)


def test_a_heartbeat_that_comes_again_says_nothing_of_services() -> None:
    site, listener = Site(), Listener()
    _, sent = site.beat()
    listener.complete(sent)
    assert listener.complete(sent) == dataclasses.replace(sent, services=())


def test_a_group_that_is_gone_is_forgotten() -> None:
    site, listener = Site(), Listener()
    listener.complete(site.beat()[1])
    site.services = tuple(one for one in site.services if one.group != "g3")
    whole, sent = site.beat()
    assert by_group(listener.complete(sent)) == by_group(whole)


STEP = st.one_of(
    st.just("beat"),
    st.just("lost"),
    st.just("lost and known"),
    st.just("again"),
    st.just("late"),
    st.just("restart"),
    st.tuples(
        st.integers(0, 29), st.sampled_from(["role", "gate_open", "checkpoint_sequence", "why"]), st.integers(0, 2)
    ),
)
WORDS = {
    "role": ("standby", "active", "stopped"),
    "gate_open": (False, True, True),
    "checkpoint_sequence": (1, 2, 3),
    "why": ("", "slow", "late"),
}


@given(st.lists(STEP, max_size=60))
def test_whatever_is_lost_comes_again_or_late_nothing_old_is_taken_for_new(steps: list) -> None:
    """`late` ones come after all others of their process, as from a socket that was stopped."""
    site, listener, held = Site(), Listener(), []
    names = (f"process {number}" for number in itertools.count())
    for step in steps:
        match step:
            case "beat":
                whole, sent = site.beat()
                payload = codec.encode(sent, "here/agent", "1", 0.0)
                heard = listener.complete(codec.decode(payload).message)
                assert by_group(heard).items() <= by_group(whole).items()
                assert dataclasses.replace(heard, services=whole.services, services_version=0) == whole
                held.append(sent)
            case "lost":
                held.append(site.beat()[1])
            case "lost and known":
                site.beat()
                site.teller.lost()
            case "again" if held:
                listener.complete(held[-1])
            case "late" if held:
                listener.complete(held.pop(0))
            case "restart":
                site = Site(incarnation=next(names))
            case (index, name, choice):
                site.change(index, **{name: WORDS[name][choice]})
    for _ in range(BEATS_OF_A_TURN + 1):
        whole, sent = site.beat()
        heard = listener.complete(sent)
    assert by_group(heard) == by_group(whole)
