"""Plays many schedules on all processors, and tells the whole story of one. Printing is for the command line."""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass

import structlog

from tunnelswitch_lab.simulator.playing import Violation, play
from tunnelswitch_lab.simulator.schedule import Schedule, draw
from tunnelswitch_lab.simulator.shrinking import shrink
from tunnelswitch_lab.simulator.world import Told

CHUNK = 100
COLLECTED_EACH = 25
VIOLATIONS_MAX = 20
_SILENT = logging.CRITICAL


@dataclass(frozen=True, slots=True)
class Found:
    """A schedule that came to harm."""

    seed: int
    violation: Violation


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a series came to. `schedules` were played; after VIOLATIONS_MAX violations no more are."""

    schedules: int
    violations: tuple[Found, ...]
    seconds: float

    def __str__(self) -> str:
        return f"simulate: schedules={self.schedules} violations={len(self.violations)} seconds={self.seconds:.1f}"


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """What processes log is not wanted a million times. The caller's settings are put back."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_SILENT), cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)


def simulate(
    first_seed: int, schedules: int, jobs: int | None = None, progress: Callable[[int, int], object] | None = None
) -> Outcome:
    """Play the schedules of so many seeds, each to its end or its first broken rule.

    Args:
        jobs: processes; by default one for each processor, and none besides this one for a small series.
        progress: called with the numbers played and found so far.
    """
    began = time.monotonic()
    jobs = min(jobs or os.cpu_count() or 1, -(-schedules // CHUNK))
    played, found = 0, []
    for number, some in _all(first_seed, schedules, jobs):
        played += number
        found += some
        if progress is not None:
            progress(played, len(found))
        if len(found) >= VIOLATIONS_MAX:
            break
    return Outcome(played, tuple(sorted(found, key=lambda one: one.seed)), time.monotonic() - began)


def _all(first_seed: int, schedules: int, jobs: int) -> Iterator[tuple[int, list[Found]]]:
    end = first_seed + schedules
    ranges = [range(seed, min(seed + CHUNK, end)) for seed in range(first_seed, end, CHUNK)]
    if jobs <= 1:
        yield from map(play_range, ranges)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: set[Future[tuple[int, list[Found]]]] = set()
        try:
            while ranges or waiting:
                while ranges and len(waiting) < 2 * jobs:
                    waiting.add(pool.submit(play_range, ranges.pop(0)))
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for one in done:
                    yield one.result()
        finally:
            pool.shutdown(cancel_futures=True)


def play_range(seeds: range) -> tuple[int, list[Found]]:
    """Play these seeds here. Returns how many, and the violations."""
    found = []
    with unlogged(), _collected_now_and_then() as played:
        for seed in seeds:
            violation = play(draw(seed))
            if violation is not None:
                found.append(Found(seed, violation))
            played()
    return len(seeds), found


@contextlib.contextmanager
def _collected_now_and_then() -> Iterator[Callable[[], None]]:
    """Every world is one big cycle: cheapest thrown away a few at once, without a look at all that stays."""
    count = 0

    def played() -> None:
        nonlocal count
        count += 1
        if count % COLLECTED_EACH == 0:
            gc.collect()

    gc.freeze()
    gc.disable()
    try:
        yield played
    finally:
        gc.collect()
        gc.unfreeze()
        gc.enable()


def retell(seed: int, told: Told, *, whole: bool = False) -> tuple[Schedule, Violation | None]:
    """Play a seed again with a trace; a failing one cut down to what it takes, unless it is wanted `whole`."""
    schedule = draw(seed)
    with unlogged():
        violation = play(schedule)
        if violation is not None and not whole:
            schedule = shrink(schedule, violation.rule)
        return schedule, play(schedule, told)
