"""Medians, ranges, slopes and differences, of which nothing but the runs decides."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunnelswitch_lab.paper.reading import difference_with_range, slope, slope_with_range, spread

DOWNTIMES = st.lists(st.floats(0.01, 3.0), min_size=3, max_size=8)


def test_a_spread_names_the_middle_and_both_ends() -> None:
    assert spread([0.3, 0.1, 0.2]) == {"runs": 3, "median": 0.2, "min": 0.1, "max": 0.3}
    assert spread([]) == {"runs": 0, "median": None, "min": None, "max": None}


def test_one_outlier_does_not_tilt_the_slope() -> None:
    flat = {interval: [0.08, 0.081, 0.082] for interval in (40.0, 100.0, 800.0)}
    assert slope(flat) == 0.0
    assert slope({**flat, 800.0: [0.08, 0.081, 2.1]}) == pytest.approx(0.0, abs=1e-5)
    assert slope({40.0: [0.1], 140.0: [0.2]}) == pytest.approx(0.001)
    assert slope({40.0: [0.1], 140.0: []}) is None


def test_too_few_runs_have_no_range() -> None:
    assert slope_with_range({40.0: [0.1, 0.1], 140.0: [0.2, 0.2]}) == {
        "value": pytest.approx(0.001),
        "low": None,
        "high": None,
    }
    assert difference_with_range([], [0.1]) == {"value": None, "low": None, "high": None}


@settings(max_examples=15, deadline=None)
@given(DOWNTIMES, DOWNTIMES)
def test_the_range_of_a_difference_is_the_same_each_time_and_within_what_was_seen(
    one: list[float], other: list[float]
) -> None:
    found = difference_with_range(one, other)
    assert found == difference_with_range(one, other)
    assert min(other) - max(one) <= found["low"] <= found["high"] <= max(other) - min(one)


def test_an_effect_is_told_from_none() -> None:
    grows = slope_with_range(
        {i: [i / 1000 + wobble for wobble in (0.0, 0.01, 0.02, 0.03)] for i in (40.0, 200.0, 800.0)}
    )
    assert 0 < grows["low"] <= grows["value"] <= grows["high"]
    slower = difference_with_range([0.05, 0.052, 0.054, 0.05], [0.08, 0.083, 0.081, 0.084])
    assert 0 < slower["low"] <= slower["value"] == pytest.approx(0.031)
