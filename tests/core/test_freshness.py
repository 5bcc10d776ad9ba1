"""Stale and replayed messages are told from fresh ones without trusting any other machine's clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch.core.freshness import RETIRED_MAX, Freshness, Stale

AGE_MAX = 0.03


def test_order_is_by_sequence() -> None:
    freshness = Freshness(AGE_MAX)
    assert freshness.check("a", "i1", 5, 100.0, 7.0) is None
    assert freshness.check("a", "i1", 5, 100.0, 7.0) is Stale.SEQUENCE
    assert freshness.check("a", "i1", 4, 100.01, 7.01) is Stale.SEQUENCE
    assert freshness.check("a", "i1", 6, 100.01, 7.01) is None


def test_a_restarted_sender_counts_from_one_and_its_old_self_is_not_believed() -> None:
    freshness = Freshness(AGE_MAX)
    assert freshness.check("a", "i1", 900, 100.0, 7.0) is None
    assert freshness.check("a", "i2", 1, 3.0, 7.1) is None
    assert freshness.check("a", "i1", 901, 100.11, 7.11) is Stale.INCARNATION


def test_a_replayed_backlog_is_too_old() -> None:
    freshness = Freshness(AGE_MAX)
    assert freshness.check("a", "i1", 1, 100.0, 7.0) is None
    backlog = [freshness.check("a", "i1", 2 + n, 100.01 + n * 0.01, 8.0) for n in range(50)]
    assert set(backlog) == {Stale.AGE}
    assert freshness.check("a", "i1", 90, 101.0, 8.0) is None


def test_one_old_heartbeat_of_an_unknown_incarnation_does_not_deafen_for_ever() -> None:
    freshness = Freshness(AGE_MAX)
    assert freshness.check("a", "now", 500, 100.0, 7.0) is None
    assert freshness.check("a", "before", 3, 90.0, 7.001) is None
    late = [freshness.check("a", "now", 501 + n, 100.01 + n * 0.01, 7.01 + n * 0.01) for n in range(100)]
    assert late[-1] is None


def test_a_sender_whose_clock_stood_still_is_heard_again() -> None:
    """A virtual machine that was suspended: its monotonic clock is behind for good."""
    freshness = Freshness(AGE_MAX)
    assert freshness.check("a", "i", 1, 100.0, 7.0) is None
    later = [freshness.check("a", "i", 2 + n, 100.01 + n * 0.01, 12.01 + n * 0.01) for n in range(400)]
    assert later[0] is Stale.AGE
    assert later[-1] is None


@given(offset=st.floats(-1e6, 1e6), delays=st.lists(st.floats(0, AGE_MAX * 0.9), min_size=1, max_size=50))
def test_delays_below_the_limit_are_accepted_whatever_the_clocks_say(offset: float, delays: list[float]) -> None:
    freshness = Freshness(AGE_MAX)
    for n, delay in enumerate(delays):
        sent_at = n * 0.05
        assert freshness.check("a", "i", n, sent_at + offset, sent_at + delay) is None


@given(rate=st.floats(-200e-6, 200e-6))
def test_a_clock_of_another_rate_is_no_delay(rate: float) -> None:
    freshness = Freshness(AGE_MAX)
    for n in range(2000):
        assert freshness.check("a", "i", n, n * 1.0 * (1 + rate), n * 1.0) is None


def test_many_incarnations_take_bounded_memory() -> None:
    freshness = Freshness(AGE_MAX)
    for n in range(10 * RETIRED_MAX):
        assert freshness.check("a", f"i{n}", 1, 0.0, float(n)) is None
    assert len(freshness._sources["a"].retired) <= RETIRED_MAX
