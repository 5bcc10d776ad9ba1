"""The window widens to what was measured at once, comes back after the horizon, and keeps its budget."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch.core.patience import BLOCK_SECONDS, BLOCKS, DAY_SECONDS, Limits, Patience

INTERVAL = 0.01
LIMITS = Limits(interval_seconds=INTERVAL, window_seconds=0.03, ceiling_seconds=1.0)
HORIZON = BLOCKS * BLOCK_SECONDS


class Line:
    """A live site's heartbeats: each gap once heard, as the detector would tell it."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.now = 0.0
        self.patience = Patience(limits, 0.0)

    def gap(self, seconds: float, missed: int = 0) -> None:
        self.now += seconds
        allowed = self.patience.window_seconds
        self.patience.heard(self.now, missed)
        self.patience.waited(seconds, allowed)

    def quiet(self, seconds: float) -> None:
        for _ in range(round(seconds / INTERVAL)):
            self.gap(INTERVAL)


def test_nothing_measured_is_the_configured_window() -> None:
    line = Line()
    line.quiet(HORIZON / 10)
    assert line.patience.window_seconds == LIMITS.window_seconds
    assert line.patience.false_silences_per_day_expected == 0.0


def test_the_noise_of_a_calm_machine_does_not_widen() -> None:
    """Largest gaps of 12 to 14 ms in a block, and one hiccup of twice the interval: as measured at 10 ms."""
    line = Line()
    for block in range(BLOCKS):
        line.quiet(BLOCK_SECONDS / 100)
        line.gap(0.012 + 0.002 * (block % 2))
        line.now += BLOCK_SECONDS
    line.gap(0.021)
    assert line.patience.window_seconds == LIMITS.window_seconds


def test_one_gap_widens_at_once_and_is_forgotten_after_the_horizon() -> None:
    line = Line()
    line.quiet(1.0)
    line.gap(0.08)
    assert 0.08 <= line.patience.window_seconds < 0.12
    assert line.patience.false_silences == 1
    for _ in range(BLOCKS - 1):
        line.now += BLOCK_SECONDS
        line.gap(INTERVAL)
        assert line.patience.window_seconds >= 0.08, "not before"
    line.now += BLOCK_SECONDS
    line.gap(INTERVAL)
    assert line.patience.window_seconds == LIMITS.window_seconds


def test_never_beyond_the_ceiling_and_then_it_says_how_far_over_the_budget_it_is() -> None:
    line = Line()
    for _ in range(BLOCKS // 2):
        line.gap(0.9)
        line.now += BLOCK_SECONDS
    assert line.patience.window_seconds == LIMITS.ceiling_seconds
    assert line.patience.measured_seconds > LIMITS.ceiling_seconds
    assert line.patience.false_silences_per_day_expected > LIMITS.false_silences_per_day


def test_an_outage_widens_nothing() -> None:
    line = Line()
    line.quiet(1.0)
    line.gap(LIMITS.ceiling_seconds + 0.001)
    assert line.patience.window_seconds == LIMITS.window_seconds
    assert line.patience.false_silences == 1


@pytest.mark.parametrize("budget", [0.1, 1.0, 24.0])
def test_the_window_keeps_the_budget_where_gaps_have_an_exponential_tail(budget: float) -> None:
    """Largest gaps of blocks drawn from Gumbel's law: the chance to exceed the window, by that law, is the budget's."""
    limits = Limits(INTERVAL, 0.03, ceiling_seconds=10.0, false_silences_per_day=budget)
    random_, location, scale = random.Random(7), 0.06, 0.008
    kept = []
    for _ in range(50):
        line = Line(limits)
        for _ in range(BLOCKS):
            line.gap(location - scale * math.log(-math.log(random_.random())))
            line.now += BLOCK_SECONDS
        exceeded = -math.expm1(-math.exp(-(line.patience.window_seconds - location) / scale))
        kept.append(exceeded * DAY_SECONDS / BLOCK_SECONDS)
    assert sorted(kept)[len(kept) // 2] <= budget * 2, "half of all stretches of ten minutes tell the budget's gap"


def test_loss_widens_by_the_run_that_the_budget_allows() -> None:
    """5 % lost, each by itself: 1.2e-7 a heartbeat is a run of six, so seven intervals."""
    assert LIMITS.run_seconds(0.05) == pytest.approx(0.07)
    assert LIMITS.run_seconds(0.0) == 0.0
    assert LIMITS.run_seconds(1.0) == LIMITS.ceiling_seconds
    line = Line()
    for number in range(round(HORIZON / INTERVAL)):
        line.gap(INTERVAL, missed=number % 19 == 0)
    assert line.patience.lost_ratio == pytest.approx(0.05, rel=0.01)
    assert line.patience.window_seconds == pytest.approx(0.07)


def test_the_path_is_given_up_no_later_than_silence_and_not_much_sooner() -> None:
    assert [LIMITS.multiplier(3, window) for window in (0.03, 0.04, 0.0425, 0.06, 0.4, 1.0)] == [3, 3, 4, 6, 33, 96]
    assert LIMITS.multiplier(50, 1.0) == 255
    for thousandths in range(30, 1000):
        window = thousandths / 1000
        assert window / 1.8 < LIMITS.multiplier(3, window) * INTERVAL <= window + 1e-9


def test_a_site_that_was_away_comes_back_as_it_was_known() -> None:
    line = Line()
    line.gap(0.08)
    line.now += 3600.0
    line.gap(INTERVAL)
    assert line.patience.window_seconds >= 0.08


def test_rare_heartbeats_make_long_blocks() -> None:
    assert Limits(1.0, 3.0, 5.0).block_seconds == 100.0
    assert LIMITS.block_seconds == BLOCK_SECONDS


@given(gaps=st.lists(st.floats(0.001, 2.0), max_size=200), budget=st.floats(0.001, 1000.0))
def test_always_between_configured_and_ceiling_and_above_every_gap_below_it(gaps: list[float], budget: float) -> None:
    line = Line(Limits(INTERVAL, 0.03, 1.0, budget))
    for gap in gaps:
        line.gap(gap)
        assert 0.03 <= line.patience.window_seconds <= 1.0
    seen = [gap for gap in gaps if gap <= 1.0]
    assert line.now >= HORIZON or line.patience.window_seconds >= max(seen, default=0.0)
    assert line.patience.false_silences_per_day_expected >= 0.0
