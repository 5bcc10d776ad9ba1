"""Stamps are totally ordered, and their text form loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch.core.stamp import Stamp

STAMPS = st.builds(
    Stamp,
    epoch=st.integers(0, 10**12),
    decision_id=st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_.:-", min_size=1, max_size=40),
    minor=st.integers(0, 10**6),
)


@given(stamp=STAMPS)
def test_text_round_trip(stamp: Stamp) -> None:
    assert Stamp.parse(str(stamp)) == stamp


@given(one=STAMPS, other=STAMPS)
def test_two_stamps_are_equal_or_ordered(one: Stamp, other: Stamp) -> None:
    assert (one < other) + (one == other) + (one > other) == 1


@given(stamp=STAMPS, other=st.text("abc", min_size=1))
def test_a_new_epoch_outranks_every_rearm_of_the_old_one(stamp: Stamp, other: str) -> None:
    assert stamp < stamp.rearmed() < Stamp(stamp.epoch + 1, other, 0)


@pytest.mark.parametrize("text", ["", "7", "7.0", "7.0-", "-1.0-a", "7.0-a b", "7.0-a\n", "x.0-a", "7" * 40 + ".0-a"])
def test_what_is_no_stamp_is_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match=r"EPOCH\.MINOR-DECISION"):
        Stamp.parse(text)
