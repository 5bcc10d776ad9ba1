"""Did a fault end as it must? A pure function of what was captured and recorded.

Who served is read from the packets alone (invariant I3). What the programs say of themselves is compared with that,
never put in its place. Times are seconds from the fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from tunnelswitch_lab import layout as names
from tunnelswitch_lab.faults import Verdict
from tunnelswitch_lab.matrix.cases import Clients, Expected
from tunnelswitch_lab.matrix.packets import CALL, PROBE, Answer, Exchange
from tunnelswitch_lab.measure.events import BusEvent
from tunnelswitch_lab.measure.gaps import largest_gap_after
from tunnelswitch_lab.measure.story import MOVES, record_of, stamp_epoch
from tunnelswitch_lab.workload.probe import PROBE_SPACING_SECONDS

ANSWERED_SECONDS = 0.5  # who is served has had an answer so recently
SILENT_SECONDS = 1.0  # who is not served has had none for so long
TUNNELS = dict(zip(names.SERVERS, ("t2", "t3"), strict=True))
TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True, slots=True)
class Served:
    """A stretch in which one copy answered."""

    site: str
    run: str
    first_at: float
    last_at: float
    answers: int


@dataclass(frozen=True, slots=True)
class Move:
    """A record of the epoch store that gave the service to another site."""

    epoch: int
    active: str
    reason: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one fault. `tunnels` are the gateway's client tunnels at the end, from its OVSDB; `words` is all
    that the programs logged and told the bus; `ended` names programs that ended though nobody killed them."""

    exchange: Exchange
    observed_seconds: float
    moves: Sequence[Move] = ()
    epochs: Sequence[int] = ()
    tunnels: Sequence[str] = ()
    words: str = ""
    ended: Sequence[str] = ()
    capture_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found, and what is wrong with it, in plain words; nothing wrong: passed."""

    verdict: str
    served: list[Served]
    downtime_seconds: float
    unanswered: int
    problems: list[str] = field(default_factory=list)


def judge(expected: Expected, seen: Seen) -> Judgement:
    """Compare what was seen with what must follow from a fault."""
    answers = seen.exchange.answers
    served = stretches(answers)
    unanswered = lost(seen.exchange, seen.observed_seconds)
    verdict = ", ".join(move.reason.replace("_", "-") for move in seen.moves) or Verdict.NONE.value
    return Judgement(
        verdict=verdict,
        served=served,
        downtime_seconds=downtime(answers, seen.observed_seconds),
        unanswered=unanswered,
        problems=[
            *one_copy(answers),
            *_who_served(expected, served),
            *_what_clients_noticed(expected.clients, answers, unanswered, seen.observed_seconds),
            *_decisions(expected, verdict, seen),
            *_soundness(expected, seen),
        ],
    )


# ---------------------------------------------------------------- from packets


def one_copy(answers: Iterable[Answer]) -> list[str]:
    """Invariant I3: no request is answered by two copies, and a copy that was replaced never answers again."""
    current, superseded = "", set[str]()
    answered_by: dict[tuple[str, int], str] = {}
    doubled, went_back = list[Answer](), list[Answer]()
    for answer in answers:
        if answered_by.setdefault((answer.flow, answer.sequence), answer.run) != answer.run:
            doubled.append(answer)
        if answer.run in superseded:
            went_back.append(answer)
        elif answer.run != current:
            superseded.add(current)
            current = answer.run
    problems = []
    if doubled:
        problems.append(f"I3: requests answered by two copies: {len(doubled)}, first {_told(doubled[0])}")
    if went_back:
        problems.append(f"I3: answers of a copy that had been replaced: {len(went_back)}, first {_told(went_back[0])}")
    return problems


def stretches(answers: Iterable[Answer]) -> list[Served]:
    """Who answered, one entry for each change of copy."""
    found = []
    for (site, run), group in groupby(answers, key=lambda answer: (answer.site, answer.run)):
        times = [answer.at for answer in group]
        found.append(Served(site, run, times[0], times[-1], len(times)))
    return found


def lost(exchange: Exchange, observed_seconds: float) -> int:
    """Packets of the call after the fault that nobody answered. The last ones may still have been under way."""
    answered = {answer.sequence for answer in exchange.answers if answer.flow == CALL}
    due = (sequence for sequence, at in exchange.asked.items() if 0 <= at < observed_seconds - ANSWERED_SECONDS)
    return sum(sequence not in answered for sequence in due)


def downtime(answers: Sequence[Answer], observed_seconds: float) -> float:
    """The longest time after the fault without an answer to the probe, up to the end of the observation."""
    probed = [answer.at for answer in answers if answer.flow == PROBE]
    gap = largest_gap_after([*probed, observed_seconds], 0.0)
    return gap.downtime_seconds(PROBE_SPACING_SECONDS) if gap else observed_seconds


# ---------------------------------------------------------------- what is wrong


def _who_served(expected: Expected, served: Sequence[Served]) -> list[str]:
    # By run: a copy that comes back is a problem of its own, and counts once here.
    in_order = list({stretch.run: stretch.site for stretch in served}.values())
    if not in_order:
        return ["the client never got an answer"]
    if in_order == list(expected.copies):
        return []
    return [f"answers came from {', then '.join(in_order)}; expected {', then '.join(expected.copies)}"]


def _what_clients_noticed(
    clients: Clients, answers: Sequence[Answer], unanswered: int, observed_seconds: float
) -> list[str]:
    last = max((answer.at for answer in answers), default=float("-inf"))
    silent = observed_seconds - last
    if clients is Clients.UNSERVED:
        return [] if silent >= SILENT_SECONDS else [f"somebody still answers, {silent:.1f} s before the end"]
    problems = []
    if silent > ANSWERED_SECONDS:
        problems.append(f"nobody answers in the last {min(silent, observed_seconds):.1f} s")
    if clients is Clients.UNAWARE and unanswered:
        problems.append(f"the call lost {unanswered} packets; it may lose none")
    return problems


def _decisions(expected: Expected, verdict: str, seen: Seen) -> list[str]:
    problems = []
    good = [one.value for one in (expected.verdict, expected.another) if one is not None]
    if verdict not in good:
        problems.append(f"verdict {verdict}, expected {' or '.join(good)}")
    last = expected.copies[-1]
    if seen.moves and seen.moves[-1].active != last:
        problems.append(f"the last record names {seen.moves[-1].active}, expected {last}")
    numbers = [move.epoch for move in seen.moves]
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        problems.append(f"epochs do not grow: {numbers}")
    return problems


def _soundness(expected: Expected, seen: Seen) -> list[str]:
    problems = [f"{name} ended, and nobody killed it" for name in seen.ended]
    wanted = TUNNELS[expected.copies[-1]]
    if len(seen.tunnels) != 1 or not seen.tunnels[0].startswith(wanted):
        problems.append(f"client tunnels at the gateway: {', '.join(seen.tunnels) or 'none'}; expected one {wanted}")
    if expected.says and not re.search(expected.says, seen.words):
        problems.append(f"nobody says {expected.says!r}")
    if TRACEBACK in seen.words:
        problems.append("a program logged a traceback")
    if seen.capture_dropped:
        problems.append(f"the capture lost {seen.capture_dropped} packets: what it shows is not sound")
    return problems


def _told(answer: Answer) -> str:
    return f"{answer.flow} packet {answer.sequence} by run {answer.run} at {answer.site}, {answer.at:+.3f} s"


# ---------------------------------------------------------------- from the bus


def moves(events: Iterable[BusEvent], active: str) -> list[Move]:
    """Every change of the active site that the bus tells of, from `active` on, in the order of the epochs."""
    told: dict[int, Move] = {}
    for event in events:
        record = record_of(event)
        epoch, reason = stamp_epoch(record.get("stamp")), record.get("reason")
        if epoch is None:
            continue
        if reason in MOVES:
            told[epoch] = Move(epoch, str(record.get("active")), str(reason))
        else:  # a re-arm: it names the active of its epoch, and not why it is
            told.setdefault(epoch, Move(epoch, str(record.get("active")), "unknown"))
    found = []
    for _, move in sorted(told.items()):
        if move.active != active:
            found.append(move)
            active = move.active
    return found


def epochs(events: Iterable[BusEvent]) -> list[int]:
    """Every epoch that a heartbeat or a record names."""
    found = set()
    for event in events:
        marks = event.data.get("marks") if event.kind == "heartbeat" else None
        stamps = list(marks.values()) if isinstance(marks, dict) else [record_of(event).get("stamp")]
        found |= {epoch for epoch in map(stamp_epoch, stamps) if epoch is not None}
    return sorted(found)
