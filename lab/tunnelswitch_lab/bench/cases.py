"""What each system does where a gap says too little: a copy that is dead or hangs on a live host, partitions, one-way
links, and split brain.

A case is the steps of a fault; nothing is expected. What comes of it is read from the client's packets: every answer
names its copy, so copies that serve in turns, or both, are seen and not claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunnelswitch_lab import layout as names
from tunnelswitch_lab.bench.flat import STANDBY_MAC
from tunnelswitch_lab.matrix.judging import Served, downtime, stretches
from tunnelswitch_lab.matrix.packets import Answer, Exchange
from tunnelswitch_lab.matrix.steps import Cut, Drop, Heal, Inject, Step, Stop, Wait
from tunnelswitch_lab.measure import copies

_PRIMARY, _SECONDARY = names.SERVERS
_LASTS = Wait(4.0)
_STRETCHES_TOLD = 8
_SILENT_SECONDS = 0.5


@dataclass(frozen=True)
class Case:
    """One fault and, for most, its end. `watch_seconds` is how long the client is watched after the last step."""

    name: str
    does: str
    steps: tuple[Step, ...]
    watch_seconds: float = 4.0


def _between(one: str, other: str) -> tuple[Step, ...]:
    return tuple(
        Drop(f'iifname "{here}" oifname "{there}"', f"nothing gets from {here} to {there}")
        for here, there in ((one, other), (other, one))
    )


def _through_gateway(key: int, mac: str) -> Step:
    # Inside GRE with a key (RFC 2890: 8 bytes) is an Ethernet frame; its source address is six bytes further on.
    source = mac.replace(":", "")
    match = f"ether type ip ip protocol gre @th,32,32 {key} @th,112,48 0x{source}"
    return Drop(match, f"the gateway hands nobody's frames from {mac} on to the other server")


CASES = (
    Case(
        "dead service, live host",
        "kills the primary's copy; its host and everything else live",
        (Inject("service-crash"),),
    ),
    Case(
        "hung service, live host",
        "stops the primary's copy (SIGSTOP); its socket stays",
        (Stop(f"service-{_PRIMARY}"),),
    ),
    Case(
        "primary isolated, back after 4 s",
        "cuts the primary off the WAN, everything on it lives, and heals it",
        (Cut(_PRIMARY), _LASTS, Heal()),
    ),
    Case(
        "gateway and primary cut, 4 s",
        "drops all between gateway and primary; both still reach the secondary",
        (*_between(names.GATEWAY, _PRIMARY), _LASTS, Heal()),
    ),
    Case(
        "split brain: servers cut, 4 s",
        "drops all between the servers, by whatever way; both still reach the gateway",
        (
            *_between(_PRIMARY, _SECONDARY),
            _through_gateway(names.T3_KEY, names.SERVICE_MAC),
            _through_gateway(names.T2_KEY, STANDBY_MAC),
            _LASTS,
            Heal(),
        ),
    ),
    Case(
        "primary deaf, 4 s",
        "drops all that is sent to the primary; what it sends arrives",
        (Drop(f'oifname "{_PRIMARY}"', "nothing reaches the primary"), _LASTS, Heal()),
    ),
)


@dataclass(frozen=True)
class Seen:
    """What the client saw: who answered and when (seconds from the fault), the longest silence, and how many answers
    came from a copy that another had replaced, or to a question that two copies answered."""

    served: list[Served]
    silence_seconds: float
    answered_at_end: bool
    overlap: int

    @property
    def short(self) -> str:
        """A cell of the table."""
        who = " → ".join(one.site for one in self.served[:_STRETCHES_TOLD]) or "nobody"
        more = f" → … ({len(self.served) - 1} changes)" if len(self.served) > _STRETCHES_TOLD else ""
        silence = f"silent {self.silence_seconds * 1000:.0f} ms{'' if self.answered_at_end else ', to the end'}"
        replaced = f"; {self.overlap} answers of a replaced copy" if self.overlap else ""
        return f"{who}{more}; {silence}{replaced}"


@dataclass(frozen=True)
class Told:
    """One case of one system: what was seen, or the problem that kept it from being carried out."""

    system: str
    interval_ms: float
    case: Case
    problem: str
    seen: Seen | None = None
    probe_lateness_max_seconds: float = 0.0

    @property
    def short(self) -> str:
        """A cell of the table."""
        return self.seen.short if self.seen else f"not carried out: {self.problem}"

    def as_json(self) -> dict[str, Any]:
        """One element of `cases` in summary.json; of many changes the first are told."""
        seen: dict[str, Any] = {}
        if self.seen:
            served = [asdict(one) for one in self.seen.served]
            copies_seen = len({one.run for one in self.seen.served})
            seen = {**asdict(self.seen), "served": served[:_STRETCHES_TOLD], "changes": max(0, len(served) - 1)}
            seen["copies"] = copies_seen
        return {
            "system": self.system,
            "interval_ms": self.interval_ms,
            "case": self.case.name,
            "does": self.case.does,
            "steps": [str(step) for step in self.case.steps],
            **seen,
            "in_short": self.short,
            "problem": self.problem,
            "probe_lateness_max_seconds": round(self.probe_lateness_max_seconds, 6),
        }


def look(exchange: Exchange, observed_seconds: float) -> Seen:
    """What an exchange of packets shows, `observed_seconds` after the fault being its end. Pure."""
    served = stretches(exchange.answers)
    return Seen(
        served=served,
        silence_seconds=round(downtime(exchange.answers, observed_seconds), 6),
        answered_at_end=bool(served) and observed_seconds - served[-1].last_at < _SILENT_SECONDS,
        overlap=replaced(exchange.answers),
    )


def replaced(answers: Sequence[Answer]) -> int:
    """Answers that must not exist if one copy serves at a time, over call and probe."""
    flows: dict[str, list[copies.Answer]] = {}
    for answer in answers:
        flows.setdefault(answer.flow, []).append(copies.Answer(answer.sequence, answer.run, answer.site, 0))
    return sum(map(copies.overlap, flows.values()))
