"""Downtime from arrival times, against a slow but obvious definition."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch_lab.measure.gaps import Gap, largest_gap, largest_gap_after

TIMES = st.lists(st.floats(0, 1000), max_size=60)


@given(TIMES)
def test_no_stretch_is_longer_and_none_holds_an_arrival(arrivals: list[float]) -> None:
    gap = largest_gap(arrivals)
    if gap is None:
        assert len(arrivals) < 2
        return
    ordered = sorted(arrivals)
    assert gap.length_seconds == max(later - earlier for earlier, later in itertools.pairwise(ordered))
    assert not [arrival for arrival in arrivals if gap.start_seconds < arrival < gap.end_seconds]
    assert {gap.start_seconds, gap.end_seconds} <= set(arrivals)


@given(TIMES, st.floats(0, 1000))
def test_a_gap_after_a_moment_ends_after_it_and_is_the_longest_such(arrivals: list[float], moment: float) -> None:
    gap = largest_gap_after(arrivals, moment)
    ordered = sorted(arrivals)
    candidates = [later - earlier for earlier, later in itertools.pairwise(ordered) if later > moment]
    if gap is None:
        assert not candidates
        return
    assert gap.length_seconds == max(candidates)
    assert gap.end_seconds > moment


@given(TIMES, st.floats(0, 10))
def test_downtime_is_never_negative_nor_longer_than_the_gap(arrivals: list[float], spacing: float) -> None:
    gap = largest_gap(arrivals)
    if gap is not None:
        assert 0 <= gap.downtime_seconds(spacing) <= gap.length_seconds


def test_a_regular_stream_has_no_downtime() -> None:
    gap = largest_gap([number * 0.02 for number in range(50)])
    assert gap is not None
    assert gap.downtime_seconds(0.02) == pytest.approx(0, abs=1e-9)
    assert Gap(1.0, 1.5).downtime_seconds(0.02) == pytest.approx(0.48)
