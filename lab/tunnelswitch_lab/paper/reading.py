"""What many runs come to: medians, ranges, a slope and a difference, each with how far chance alone may move it.

Pure. It draws no conclusion.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

_RESAMPLES = 1000
_LEAST_RUNS = 3  # of fewer nothing can be drawn anew
_SHARE = 0.95

Groups = Mapping[float, Sequence[float]]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """How many there are, their median, the smallest and the largest; None of nothing."""
    if not values:
        return {"runs": 0, "median": None, "min": None, "max": None}
    return {"runs": len(values), "median": median(values), "min": min(values), "max": max(values)}


def slope(groups: Groups) -> float | None:
    """How much a value grows with its group's key, per unit: the median of all slopes between two runs of different
    groups, which outliers do not move (P. K. Sen, JASA 63, 1968). None with less than two groups."""
    keys = sorted(key for key, values in groups.items() if values)
    slopes = [
        (later - earlier) / (high - low)
        for number, low in enumerate(keys)
        for high in keys[number + 1 :]
        for earlier in groups[low]
        for later in groups[high]
    ]
    return median(slopes) if slopes else None


def slope_with_range(groups: Groups) -> dict[str, Any]:
    """The slope, and between which values it lies in 95 of 100 redraws of the runs of every group (bootstrap)."""
    return _with_range(slope(groups), groups.values(), lambda drawn: slope(dict(zip(groups, drawn, strict=True))))


def difference_with_range(one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """The median of the other less that of the one, and its range as that of the slope."""
    known = median(other) - median(one) if one and other else None
    return _with_range(known, (one, other), lambda drawn: median(drawn[1]) - median(drawn[0]))


def _with_range(
    value: float | None,
    groups: Iterable[Sequence[float]],
    again: Callable[[list[list[float]]], float | None],
) -> dict[str, Any]:
    kept = [list(group) for group in groups]
    if value is None or min(map(len, kept)) < _LEAST_RUNS:
        return {"value": value, "low": None, "high": None}
    chance = random.Random(0)  # the same runs give the same range
    drawn = (again([chance.choices(group, k=len(group)) for group in kept]) for _ in range(_RESAMPLES))
    values = sorted(one for one in drawn if one is not None)
    cut = round((1 - _SHARE) / 2 * len(values))
    return {"value": value, "low": values[cut], "high": values[-1 - cut]}
