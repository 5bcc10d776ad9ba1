"""Bugs that the simulator must find: one rule taken away each, by name. They exist only while a test holds them.

`found.py` searches for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from planted_parts import PARTS
from planted_sites import SITES

from tunnelswitch.core import algorithm1, certificate, concluding, evidence, facts, hosting, quorum, readiness, topology
from tunnelswitch.core.actions import AllowOutput
from tunnelswitch.core.alone import Alone
from tunnelswitch.core.braking import Brake
from tunnelswitch.core.certificate import Certificate
from tunnelswitch.core.deciding import GroupDecider
from tunnelswitch.core.detector import Detector
from tunnelswitch.core.evidence import Evidence, Verdict
from tunnelswitch.core.facts import Bus, Path, Proof, ProofKind, Protection, Reason
from tunnelswitch.core.freshness import Freshness
from tunnelswitch.core.gate import Gate
from tunnelswitch.core.hosting import HostedGroup
from tunnelswitch.core.isolation import Isolation
from tunnelswitch.core.member import Member
from tunnelswitch.core.stamp import Stamp
from tunnelswitch_lab.simulator.switches import Switch

Plant = Callable[[], contextlib.AbstractContextManager[Any]]
PLANTED: dict[str, Plant] = {**PARTS, **SITES}


def plant(name: str) -> Callable[[Callable[[], Iterator[None]]], Callable[[], Iterator[None]]]:
    """Register a generator function that holds the bug while it is suspended."""

    def register(bug: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        PLANTED[name] = contextlib.contextmanager(bug)
        return bug

    return register


def replaced(name: str, where: object, attribute: str, by: object) -> None:
    PLANTED[name] = lambda: patch.object(where, attribute, by)


# ---------------------------------------------------------------------- the gate and its guard


def _final(self: Gate, result: Any, now: float) -> None:
    self._sent = None
    self._retry_at = float("inf")


def _saw_once(self: Gate, seen: Any, saw: Any = Gate._saw) -> None:
    if not self.seen and self.stored is None:
        saw(self, seen)
    self.seen = True


replaced("a failed guard is taken as final", Gate, "_conflicted", _final)
replaced("reconciling trusts memory over OVSDB", Gate, "_saw", _saw_once)


@plant("a higher stamp in OVSDB does not fence")
def _no_fence() -> Iterator[None]:
    """Neither the decision nor the adapter looks."""
    with (
        patch.object(Gate, "fenced", property(lambda self: False)),
        patch.object(Switch, "_is_older", lambda *_: False),
    ):
        yield


replaced(
    "the tunnel is added and the other one stays",
    topology,
    "switch_tunnels",
    lambda **kw: algorithm1.TunnelChange(algorithm1.switch_tunnels(**kw).add, frozenset()),
)

# ---------------------------------------------------------------------- exposing


def _x_is_detection(self: Certificate, record: Any, now: float, real: Any = Certificate._fence_time_passed) -> bool:
    with patch.object(certificate, "EXECUTION_SECONDS", -self._member.timing.fence_after_seconds):
        return bool(real(self, record, now))


def _time_since_start(self: HostedGroup, record: Any, now: float) -> None:
    """The time of isolation begins when it is missed: an echo may be `fence_after` old by then."""
    seconds = self.member.timing.fence_after_seconds
    lonely = now - self.isolation.in_touch_at(record.voters, now) > seconds
    since = getattr(self, "_lonely", None) if lonely else None
    self._lonely = (now if since is None else since) if lonely else None  # type: ignore[attr-defined]
    if lonely and record.in_sync and self.gate.open and now - self._lonely >= seconds:  # type: ignore[attr-defined]
        self.latched = record.stamp


def _one_gateway_is_enough(self: Certificate, record: Any, now: float, real: Any = Certificate.of) -> str | None:
    if any(record.stamp <= self._acks.get(gateway, Stamp(0, "")) for gateway in record.gateways):
        return "a gateway applied"
    return real(self, record, now)  # type: ignore[no-any-return]


def _unlatching(self: HostedGroup, record: Any, now: float, real: Any = HostedGroup._check_isolation) -> None:
    real(self, record, now)
    if now - self.isolation.in_touch_at(record.voters, now) < self.member.timing.window_seconds:
        self.latched = None


@plant("an isolated active does not close itself")
def _never_closed() -> Iterator[None]:
    """Nor does its watchdog see to it."""
    unfenced = patch.object(HostedGroup, "_check_isolation", lambda *_: None)
    with unfenced, patch.object(Isolation, "fit", lambda *_: True):
        yield


replaced("a copy is exposed on commit, with several gateways", HostedGroup, "_may_expose", lambda *_: True)
replaced("one gateway's word is certificate enough", Certificate, "of", _one_gateway_is_enough)
replaced("the fence time is only the detection time", Certificate, "_fence_time_passed", _x_is_detection)


@plant("isolation counts from when it is missed")
def _counted_late() -> Iterator[None]:
    """Nor does its watchdog see to it."""
    late = patch.object(HostedGroup, "_check_isolation", _time_since_start)
    with late, patch.object(Isolation, "fit", lambda *_: True):
        yield


replaced("a fence that unlatches when voters are back", HostedGroup, "_check_isolation", _unlatching)


# ---------------------------------------------------------------------- evidence


def _prove_unseen(self: HostedGroup, record: Any, real: Any = HostedGroup._prove) -> None:
    with patch.object(Gate, "settled", lambda gate, stamp: True), patch.object(Gate, "open", False):
        real(self, record)


def _any_run(self: Evidence, proof: Proof, record: Any) -> bool:
    if proof.site == record.active and proof.stamp == record.stamp:
        self.proofs[proof.service] = proof
    return True


def _any_stamp(self: Evidence, proof: Proof, record: Any) -> bool:
    if proof.site == record.active and (proof.kind is ProofKind.FENCED or proof.run in record.active_run):
        self.proofs[proof.service] = proof
    return True


def _any_stamp_counts(
    ballots: Any, voters: Any, *, group: str, active: str, stamp: Any, now: float, age_max_seconds: float
) -> Any:
    counted = []
    for voter in voters:
        ballot = ballots.get(voter)
        if voter == active or ballot is None or now - ballot.received_at > age_max_seconds or ballot.heartbeat.late:
            continue
        vote = ballot.vote(group)
        if vote is not None and vote.down and vote.subject == active:
            counted.append(voter)
    return tuple(counted)


def _abstainers_count(ballots: Any, voters: Any, *, real: Any = quorum.down_votes, **bound: Any) -> Any:
    awake = {site: quorum.Ballot(replace(b.heartbeat, late=False), b.received_at) for site, b in ballots.items()}
    return real(awake, voters, **bound)


def _present(seen: Evidence, record: Any, now: float, real: Any = concluding.conclude) -> Any:
    present = sum(seen.fresh(voter, now) is not None for voter in record.voters)
    with patch.object(concluding, "quorum", lambda _: max(1, quorum.quorum(present))):
        return real(seen, record, now)


def _t1(seen: Evidence, record: Any, now: float, real: Any = concluding.conclude) -> Any:
    active = seen.statuses(record.active, now).values()
    if record.in_sync and any(status.protection is Protection.UNPROTECTED for status in active):
        return Verdict(Reason.SUSPICION, ("checkpoints lost",))
    return real(seen, record, now)


def _no_consent(seen: Evidence, record: Any, now: float, real: Any = concluding.conclude) -> Any:
    verdict = real(seen, record, now)
    return verdict and Verdict(verdict.reason, verdict.evidence)


def _path_only(self: Detector, site: str) -> float | None:
    peer = self._peers.get(site)
    return peer.path_since if peer is not None and peer.path is Path.DOWN else None


def _bus_only(self: Detector, site: str) -> float | None:
    peer = self._peers.get(site)
    return peer.bus_since if peer is not None and peer.bus is Bus.SILENT else None


def _void_little(self: Evidence) -> None:
    self.wish = self.asked = None


def _learn_without_voiding(self: Member, record: Any, now: float, real: Any = Member.learn) -> bool:
    since = self._record_since.get(record.group)
    learnt = bool(real(self, record, now))
    if learnt and since is not None:
        self._record_since[record.group] = since
    return learnt


def _ready(missing: tuple[str, ...]) -> Callable[..., tuple[str, ...]]:
    real = readiness.promotable

    def promotable(*args: Any) -> tuple[str, ...]:
        return tuple(why for why in real(*args) if not any(part in why for part in missing))

    return promotable


replaced("fenced is told before the gate is closed", HostedGroup, "_prove", _prove_unseen)


@plant("a proof without its run")
def _of_any_run() -> Iterator[None]:
    """Neither the agent looks which start of the copy has ended, nor the switcher."""

    def prove(self: HostedGroup, record: Any, real: Any = HostedGroup._prove) -> None:
        with patch.object(hosting, "names_run", lambda text, service, run: bool(run)):
            real(self, record)

    with patch.object(Evidence, "prove", _any_run), patch.object(HostedGroup, "_prove", prove):
        yield


replaced("a proof of an earlier stamp is accepted", Evidence, "prove", _any_stamp)
replaced("proofs survive a new stamp", Evidence, "void", _void_little)
replaced("votes of an earlier stamp are counted", evidence, "down_votes", _any_stamp_counts)
replaced("an abstainer is counted", evidence, "down_votes", _abstainers_count)
replaced("a late process believes silence", Detector, "late", lambda *_: False)
replaced("old heartbeats are believed", Freshness, "check", lambda *_, **__: None)
replaced("a re-arm does not void what voters saw", Member, "learn", _learn_without_voiding)
replaced("a majority of the present voters", concluding, "conclude", _present)
replaced("Q is taken as K", concluding, "quorum", quorum.blocking)
replaced("promotion on the loss of T1 alone", concluding, "conclude", _t1)
replaced("a handover without consent", concluding, "conclude", _no_consent)
replaced("path down alone is suspicion", Detector, "down_since", _path_only)
replaced("bus silent alone is suspicion", Detector, "down_since", _bus_only)
replaced("a service that neither copy gives is moved to and fro", Brake, "holds", lambda *_: False)
replaced("a standby out of sync is promoted", readiness, "promotable", _ready(("not in sync", "another run")))


# ---------------------------------------------------------------------- the record


def _act_first(self: GroupDecider, record: Any, now: float, real: Any = GroupDecider._send_commit) -> None:
    revision = self.kept.revision
    real(self, record, now)
    self._enforce(record, revision, now)
    self._actions.append(evidence_epoch(record))
    self._apply(record, now)


def evidence_epoch(record: Any) -> Any:
    from tunnelswitch.core.actions import Publish

    return Publish(facts.Epoch(record), flush=True)


def _crash_is_failure(self: HostedGroup, record: Any, real: Any = HostedGroup._prove) -> None:
    for instance in self.instances.values():
        instance.exited_had_served = False
    real(self, record)


replaced("acting before the commit", GroupDecider, "_send_commit", _act_first)
replaced("a crash after serving is a failed promotion", HostedGroup, "_prove", _crash_is_failure)

# ---------------------------------------------------------------------- output that no standby holds

replaced(
    "unprotected output before the record",
    Alone,
    "words",
    lambda self, record, *, unprotected, repeated: [AllowOutput(service, unprotected) for service in self._services],
)
