"""What a site sees of another: silence, paths, its own lateness."""

from __future__ import annotations

import pytest

from tunnelswitch.core.detector import DOUBT_SECONDS, DOUBT_WINDOWS, GRACE_SECONDS_MIN, HOLD_WINDOWS, Detector
from tunnelswitch.core.facts import Bus, Path
from tunnelswitch.core.patience import Limits

WINDOW = 0.03
LIMITS = Limits(interval_seconds=0.01, window_seconds=WINDOW, ceiling_seconds=0.5)


@pytest.fixture
def detector() -> Detector:
    detector = Detector(("a", "b"), limits=LIMITS, now=0.0)
    detector.heard("a", 1.0)
    detector.path("a", Path.UP, 1.0)
    return detector


def test_silent_after_one_window_and_not_before(detector: Detector) -> None:
    assert detector.deadline() == pytest.approx(1.0 + WINDOW)
    assert not detector.expire(1.0 + WINDOW - 0.001)
    assert detector.expire(1.0 + WINDOW)
    seen = detector.observation("a", 1.05)
    assert seen.bus is Bus.SILENT
    assert seen.bus_seconds == pytest.approx(0.02)


def test_never_heard_is_unknown_for_a_grace_and_then_silent(detector: Detector) -> None:
    detector.expire(GRACE_SECONDS_MIN - 0.1)
    assert detector.observation("b", GRACE_SECONDS_MIN - 0.1).bus is Bus.UNKNOWN
    detector.expire(GRACE_SECONDS_MIN)
    assert detector.observation("b", GRACE_SECONDS_MIN).bus is Bus.SILENT


def test_a_path_that_was_never_up_is_down_only_after_the_grace(detector: Detector) -> None:
    detector.path("b", Path.DOWN, 0.1)
    detector.expire(1.0)
    assert detector.observation("b", 1.0).path is Path.UNKNOWN
    detector.expire(GRACE_SECONDS_MIN)
    assert detector.observation("b", GRACE_SECONDS_MIN).path is Path.DOWN


def test_down_needs_path_and_bus_both_gone(detector: Detector) -> None:
    detector.path("a", Path.DOWN, 1.02)
    assert detector.down_since("a") is None, "the bus still works"
    detector.expire(1.03)
    assert detector.down_since("a") == pytest.approx(1.03)
    detector.heard("a", 1.04)
    assert detector.down_since("a") is None


def test_a_path_that_is_not_known_is_not_down(detector: Detector) -> None:
    detector.path("a", Path.UNKNOWN, 1.0)
    detector.expire(2.0)
    assert detector.down_since("a") is None


def test_a_path_that_came_back_is_neither_up_nor_down_for_a_while(detector: Detector) -> None:
    detector.path("a", Path.DOWN, 2.0)
    detector.path("a", Path.UP, 2.1)
    detector.path("a", Path.UP, 2.15)
    assert detector.observation("a", 2.15).path is Path.UNKNOWN
    assert detector.down_since("a") is None
    detector.expire(2.1 + HOLD_WINDOWS * WINDOW)
    assert detector.observation("a", 2.3).path is Path.UP


def test_a_flapping_path_starts_its_hold_again(detector: Detector) -> None:
    for n in range(10):
        detector.path("a", Path.DOWN, 2.0 + n * 0.05)
        detector.path("a", Path.UP, 2.02 + n * 0.05)
        detector.expire(2.04 + n * 0.05)
        assert detector.observation("a", 2.04 + n * 0.05).path is not Path.UP


def test_a_path_that_was_wrong_before_needs_a_longer_silence_to_be_believed(detector: Detector) -> None:
    detector.path("a", Path.DOWN, 2.0)
    detector.heard("a", 2.0 + 2 * WINDOW)
    detector.expire(2.0 + 4 * WINDOW)
    assert detector.down_since("a") is None
    detector.expire(2.0 + (2 + DOUBT_WINDOWS) * WINDOW)
    assert detector.down_since("a") is not None
    detector.heard("a", 3.0)
    detector.path("a", Path.UP, 3.0)
    detector.expire(4.0)
    after = 3.0 + DOUBT_SECONDS
    detector.path("a", Path.DOWN, after)
    detector.heard("a", after)
    detector.expire(after + WINDOW)
    assert detector.down_since("a") == pytest.approx(after + WINDOW), "forgiven after a while"


def test_a_process_that_ran_late_starts_its_windows_again_and_abstains(detector: Detector) -> None:
    assert detector.late(0.5, 1.5)
    assert not detector.expire(1.5), "its own sleep is not the other's silence"
    assert detector.abstains(1.5)
    assert detector.expire(1.5 + WINDOW)
    assert not detector.abstains(1.5 + WINDOW)


def test_a_little_lateness_voids_nothing(detector: Detector) -> None:
    assert not detector.late(WINDOW * 0.4, 1.02)
    assert not detector.abstains(1.02)


def test_sites_that_are_none_of_ours_are_ignored(detector: Detector) -> None:
    assert not detector.heard("stranger", 1.0)
    assert not detector.path("stranger", Path.DOWN, 1.0)
    assert detector.down_since("stranger") is None


# ---------------------------------------------------------------------- windows that widen


def beats(detector: Detector, begin: float, *gaps: float) -> float:
    """Heartbeats of `a`, so far apart, beginning after the grace. Returns when the last came."""
    now = begin
    detector.heard("a", now)
    for gap in gaps:
        now += gap
        detector.expire(now)
        detector.heard("a", now)
    return now


def test_a_window_widens_to_the_gaps_of_a_live_site_and_of_that_site_alone(detector: Detector) -> None:
    now = beats(detector, 3.0, 0.01, 0.08, 0.01)
    window = detector.window_seconds("a")
    assert window >= 0.08
    assert detector.window_seconds("b") == WINDOW
    assert not detector.expire(now + window - 0.001)
    assert detector.expire(now + window)
    assert detector.allowed_seconds("a") == window


def test_gaps_of_the_start_teach_nothing(detector: Detector) -> None:
    beats(detector, 1.1, 0.08, 0.05)
    assert detector.window_seconds("a") == WINDOW


def test_a_process_that_died_in_between_teaches_nothing(detector: Detector) -> None:
    now = beats(detector, 3.0, 0.01)
    detector.heard("a", now + 0.2, missed=None)
    assert detector.window_seconds("a") == WINDOW


def test_own_sleep_teaches_nothing(detector: Detector) -> None:
    now = beats(detector, 3.0, 0.01)
    detector.late(0.2, now + 0.2)
    detector.heard("a", now + 0.2, missed=12)
    assert detector.window_seconds("a") == WINDOW
    assert detector.patience()["a"].lost_ratio == 0.0


def test_a_sleep_that_is_short_beside_a_widened_window_is_left_out_of_the_silence() -> None:
    detector = Detector(("a",), limits=LIMITS, now=0.0)
    now = beats(detector, 3.0, 0.3)
    window = detector.allowed_seconds("a")
    assert window > 0.29
    for number in range(1, 4):
        assert not detector.late(0.05, now + 0.08 * number), "nothing is void"
    assert not detector.abstains(now + 0.24)
    assert not detector.expire(now + window + 0.14)
    assert detector.expire(now + window + 0.151)


def test_a_doubted_path_never_asks_for_more_than_the_ceiling() -> None:
    detector = Detector(("a",), limits=Limits(0.01, WINDOW, ceiling_seconds=2 * WINDOW), now=0.0)
    detector.heard("a", 3.0)
    detector.path("a", Path.UP, 3.0)
    detector.path("a", Path.DOWN, 3.0)
    detector.heard("a", 3.0 + 1.5 * WINDOW)
    assert detector.allowed_seconds("a") == 2 * WINDOW
