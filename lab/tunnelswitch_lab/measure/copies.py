"""Which copy of the service answered, packet by packet: overlap, the share of each, and the state that was
lost.

Pure. A copy is one run of the process. "Superseded" means that another copy has answered since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as the client got it; answers are looked at in the order of arrival."""

    sequence: int
    run: str
    site: str
    counter: int


def packets_by_site(answers: Iterable[Answer]) -> dict[str, int]:
    """How many answers came from each site."""
    return dict(Counter(answer.site for answer in answers))


def repeated(answers: Iterable[Answer]) -> int:
    """Answers to a packet that another copy had answered."""
    answered_by: dict[int, str] = {}
    return sum(answered_by.setdefault(answer.sequence, answer.run) != answer.run for answer in answers)


def overlap(answers: Sequence[Answer], *, replays: bool = False) -> int:
    """Answers that must not exist: from a copy that was superseded, or to a packet that two copies answered.

    With `replays` the latter may be: a virtual machine that goes on from a checkpoint answers again what it had
    received and not yet answered at that time, since its network queues are part of its state.
    """
    superseded: set[str] = set()
    answered_by: dict[int, str] = {}
    current, wrong = "", 0
    for answer in answers:
        if answer.run != current and answer.run not in superseded:
            if current:
                superseded.add(current)
            current = answer.run
        doubled = answered_by.setdefault(answer.sequence, answer.run) != answer.run
        wrong += (doubled and not replays) or answer.run in superseded
    return wrong


def rollback(answers: Sequence[Answer]) -> int | None:
    """How many answered packets the new copy does not know of, summed over changes; None when none changed."""
    highest: int | None = None
    run, lost, changed = "", 0, False
    for answer in answers:
        if answer.run != run:
            if highest is not None:
                changed = True
                lost += max(0, highest + 1 - answer.counter)
            run, highest = answer.run, answer.counter
        highest = max(highest or 0, answer.counter)
    return lost if changed else None
