"""Virtual time: what happens when. Equal times keep the order in which they were asked for. It knows no rule."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

START_SECONDS = 1000.0


class Timeline:
    """Calls by due time. `now` is true time, which no machine sees."""

    def __init__(self) -> None:
        self.now = START_SECONDS
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._afterwards: Callable[[], None] | None = None

    def at(self, time: float, what: Callable[..., None], *args: Any) -> None:
        """Call `what(*args)` at `time`, or now if that has passed."""
        heapq.heappush(self._queue, (max(time, self.now), next(self._order), what, args))

    def after(self, delay_seconds: float, what: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._queue, (self.now + delay_seconds, next(self._order), what, args))

    def afterwards(self, what: Callable[[], None]) -> None:
        """Call `what` once when the step that runs now is done."""
        self._afterwards = what

    def run(self, until: float) -> None:
        """Let time pass."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until:
            self.now, _, what, args = pop(queue)
            what(*args)
            if self._afterwards is not None:
                what, self._afterwards = self._afterwards, None
                what()
        self.now = until
