"""What `tunnelswitch-lab simulate` prints: progress, violations with their shortest story, one line at the end."""

from __future__ import annotations

import sys
import time

from tunnelswitch_lab.simulator.running import Found, retell, simulate
from tunnelswitch_lab.simulator.trace import heading, line

PROGRESS_SECONDS = 10.0
STORIES_MAX = 3


def series(first_seed: int, schedules: int, jobs: int | None = None) -> bool:
    """Play so many schedules. Returns whether every rule held in all of them."""
    told_at = time.monotonic()

    def progress(played: int, found: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= PROGRESS_SECONDS:
            told_at = time.monotonic()
            print(f"{played} of {schedules} schedules, {found} violations", file=sys.stderr, flush=True)

    outcome = simulate(first_seed, schedules, jobs, progress)
    for number, one in enumerate(outcome.violations):
        _tell(one, with_story=number < STORIES_MAX)
    print(outcome)
    return not outcome.violations


def story(seed: int, *, whole: bool = False) -> bool:
    """Play one seed, and tell it. Returns whether every rule held."""
    lines: list[str] = []
    schedule, violation = retell(seed, lambda *told: lines.append(line(*told)), whole=whole)
    print("\n".join((*heading(schedule), *lines)))
    print(f"{violation.rule} is broken: {violation.what}" if violation else "every invariant held")
    return violation is None


def _tell(one: Found, *, with_story: bool) -> None:
    print(f"seed {one.seed}: {one.violation.rule} is broken: {one.violation.what}")
    if with_story:
        schedule, _ = retell(one.seed, lambda *told: None)
        print("\n".join(f"  {text}" for text in heading(schedule)))
    print(f"  make simulate SEED={one.seed} tells what happened")
