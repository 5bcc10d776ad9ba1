"""How long a live site may stay silent here, learnt from the gaps between those of its heartbeats that did arrive.

A window shorter than the gaps of a live site takes noise for death, so it widens to what is measured; a longer one only
sees a real death later. Time is cut into blocks, and of each the largest gap is kept. The window is the gap that no
block should exceed more often than the budget allows: the return level of the blocks' maxima by Gumbel's law, with
location and scale from their mean and standard deviation (E. J. Gumbel, Statistics of Extremes, 1958, chapters 5 and
6). For whatever law the maxima follow, Cantelli's inequality still bounds what is exceeded, as W. Chen, S. Toueg and
M. Aguilera use it (On the Quality of Service of Failure Detectors, IEEE Trans. Computers 51(5), 2002, section 5).
Fitting all gaps by one bell curve, as accrual detectors do (N. Hayashibara et al., 2004), would say little of rare
ones: they come from another cause than the ordinary gap.

Widening follows at once: the block under way counts, and no gap of the horizon exceeds the window. It ends when the
blocks have left the horizon. Blocks not yet lived count as quiet, so that one hiccup after a start is no distribution.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

BLOCK_SECONDS = 10.0
# A block holds at least so many heartbeats, also where they are rare.
BLOCK_INTERVALS = 100
BLOCKS = 60
MINUTE_SECONDS = 60.0
DAY_SECONDS = 86400.0
MULTIPLIER_MAX = 255  # RFC 5880, 4.1: one byte
EULER = 0.5772156649015329


@dataclass(frozen=True, slots=True)
class Limits:
    """Between what the window may move, and why.

    `window_seconds` is the configured one, and the least; `ceiling_seconds` the most. `false_silences_per_day` is how
    often a live site may be taken for silent, by one site of one other.
    """

    interval_seconds: float
    window_seconds: float
    ceiling_seconds: float
    false_silences_per_day: float = 1.0

    @property
    def block_seconds(self) -> float:
        """Length of a block."""
        return max(BLOCK_SECONDS, BLOCK_INTERVALS * self.interval_seconds)

    @property
    def deviations(self) -> float:
        """How many standard deviations above the mean of the blocks' maxima the return level lies."""
        blocks = max(math.e, DAY_SECONDS / self.block_seconds / self.false_silences_per_day)
        return math.sqrt(6) / math.pi * (math.log(blocks) - EULER)

    def multiplier(self, configured: int, window_seconds: float) -> int:
        """BFD's, so that the path is given up no sooner than silence is worth anything: both must fail for a verdict.

        In steps of the square root of two, rounded down: every change of it is a change of the switch's configuration.
        """
        steps = math.floor(2 * math.log2(max(1.0, window_seconds / self.window_seconds)))
        return min(MULTIPLIER_MAX, math.floor(configured * math.sqrt(2) ** steps))

    def run_seconds(self, lost_ratio: float) -> float:
        """Silence while so many heartbeats in a row are lost as the budget allows, if each is lost by itself."""
        if not 0.0 < lost_ratio < 1.0:
            return self.ceiling_seconds if lost_ratio > 0.0 else 0.0
        chance = min(1.0, self.false_silences_per_day * self.interval_seconds / DAY_SECONDS)
        return self.interval_seconds * (1 + math.ceil(math.log(chance) / math.log(lost_ratio)))


@dataclass(slots=True)
class _Block:
    gap_seconds: float
    worst_ratio: float = 0.0
    heard: int = 0
    missed: int = 0


class Patience:
    """With one other site."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.window_seconds = limits.window_seconds
        self.measured_seconds = 0.0
        self.worst_ratio = 0.0
        self.false_silences = 0
        self._mean = self._deviation = 0.0
        self._blocks: deque[_Block] = deque(maxlen=BLOCKS - 1)
        self._block = _Block(limits.interval_seconds)
        self._ends_at = now + limits.block_seconds

    def heard(self, now: float, missed: int = 0) -> None:
        """A heartbeat came, after so many that did not, or came too late to count."""
        if now >= self._ends_at:
            # Time in which nothing was heard makes no block: it says nothing of the gaps of a site that lives.
            if self._block.heard:
                self._blocks.append(self._block)
            self._block = _Block(self.limits.interval_seconds)
            self._ends_at = now + self.limits.block_seconds
            self._estimate()
        self._block.heard += 1
        if missed:
            self._block.missed += missed
            self._estimate()

    def waited(self, gap_seconds: float, allowed_seconds: float) -> None:
        """The site was alive, and its last two heartbeats were so far apart. `allowed_seconds`: by then it was silent.

        A gap above the ceiling is an outage: no window could have outlasted it, and none is widened by it.
        """
        ratio = gap_seconds / allowed_seconds
        self._block.worst_ratio = max(self._block.worst_ratio, ratio)
        self.worst_ratio = max(self.worst_ratio, ratio)
        if gap_seconds >= allowed_seconds:
            self.false_silences += 1
        if self._block.gap_seconds < gap_seconds <= self.limits.ceiling_seconds:
            self._block.gap_seconds = gap_seconds
            self._estimate()

    def _estimate(self) -> None:
        gaps = [block.gap_seconds for block in self._blocks]
        gaps.append(self._block.gap_seconds)
        largest = max(gaps)
        unlived = BLOCKS - len(gaps)
        self._mean = (sum(gaps) + unlived * self.limits.interval_seconds) / BLOCKS
        squares = sum((gap - self._mean) ** 2 for gap in gaps)
        squares += unlived * (self.limits.interval_seconds - self._mean) ** 2
        self._deviation = math.sqrt(squares / BLOCKS)
        level = self._mean + self.limits.deviations * self._deviation
        self.measured_seconds = max(level, largest, self.limits.run_seconds(self._lost_ratio()))
        self.window_seconds = min(max(self.limits.window_seconds, self.measured_seconds), self.limits.ceiling_seconds)

    def _lost_ratio(self) -> float:
        """Over the horizon, of which the part not yet lived counts as without loss."""
        blocks = [*self._blocks, self._block]
        missed = sum(block.missed for block in blocks)
        heard = sum(block.heard for block in blocks)
        unlived = (BLOCKS - len(blocks)) * self.limits.block_seconds / self.limits.interval_seconds
        return missed / max(1.0, missed + heard + unlived)

    # ------------------------------------------------------------------ for people

    @property
    def lost_ratio(self) -> float:
        """Of the heartbeats of about the last minute, those that did not come, or came too late to count."""
        blocks = self._lately()
        missed = sum(block.missed for block in blocks)
        return missed / max(1, missed + sum(block.heard for block in blocks))

    @property
    def worst_ratio_lately(self) -> float:
        """The worst age of a heartbeat in about the last minute, as a part of what was allowed then."""
        return max(block.worst_ratio for block in self._lately())

    @property
    def false_silences_per_day_expected(self) -> float:
        """How often the window in force will be exceeded by a live site, if things stay as they were measured."""
        if self._deviation == 0.0:
            return 0.0
        scale = self._deviation * math.sqrt(6) / math.pi
        reduced = (self.window_seconds - self._mean) / scale + EULER
        chance = -math.expm1(-math.exp(-reduced))
        return chance * DAY_SECONDS / self.limits.block_seconds

    def _lately(self) -> list[_Block]:
        count = math.ceil(MINUTE_SECONDS / self.limits.block_seconds)
        return [*list(self._blocks)[-count:], self._block]
