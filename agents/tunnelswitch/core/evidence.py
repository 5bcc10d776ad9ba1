"""What a switcher knows of one group, bound to the stamp it was learnt under: a new stamp voids all that was gathered
before. What follows from it is the business of `concluding` (PROTOCOL R5) and `readiness` (R6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tunnelswitch.core.braking import Brake
from tunnelswitch.core.facts import (
    DrainRequest,
    GroupRecord,
    Heartbeat,
    MoveRequest,
    Observation,
    Path,
    PauseRequest,
    PromoteFailed,
    Proof,
    ProofKind,
    Reason,
    ServiceStatus,
)
from tunnelswitch.core.member import Timing
from tunnelswitch.core.quorum import Ballot, down_votes
from tunnelswitch.core.runs import join_runs, names_run
from tunnelswitch.core.topology import Group

# A voter's word outlives one lost heartbeat, not more.
BALLOT_WINDOWS = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evidence says. `consent_needed`: the active must be asked to hand over first. `unanswered`: the services
    whose clients it is for. `against`: why it is not to be followed all the same."""

    reason: Reason
    evidence: tuple[str, ...]
    consent_needed: bool = False
    unanswered: tuple[str, ...] = ()
    against: tuple[str, ...] = ()


@dataclass(slots=True)
class Evidence:
    """Everything heard about one group, for the switcher at `gateway`."""

    group: Group
    gateway: str
    timing: Timing
    ballots: dict[str, Ballot] = field(default_factory=dict)
    proofs: dict[str, Proof] = field(default_factory=dict)
    wish: MoveRequest | None = None
    wished_at: float = float("-inf")
    drain: DrainRequest | None = None
    pause: PauseRequest | None = None
    asked: Verdict | None = None
    promote_failed: PromoteFailed | None = None
    brake: Brake = field(init=False)
    _open_since: dict[str, float] = field(default_factory=dict)
    _gists: dict[str, tuple[object, ...]] = field(default_factory=dict)
    _said: dict[str, list[object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.brake = Brake(self.group.hysteresis_seconds, self.timing.unanswered_seconds)

    def void(self) -> None:
        """A new stamp is in force."""
        self.proofs.clear()
        self.wish = self.drain = self.pause = self.asked = None
        self.promote_failed = None

    def moved(self, record: GroupRecord) -> None:
        """Another site is active. To be called before the evidence that it rests on is void."""
        ballot = self.ballots.get(self.gateway)
        if ballot is None or not self._was_cut_off(record):
            self.brake.release()
            return
        waiting = () if self.asked is None else self.asked.unanswered
        still = [service for service in waiting if ballot.unanswered_seconds(service)]
        self.brake.moved(record, still, ballot.heartbeat.incarnation)

    def _was_cut_off(self, record: GroupRecord) -> bool:
        """To a switcher that has not asked for it, the active's consent is a proof like any other."""
        consents = [proof.kind is ProofKind.FENCED and not proof.final_checkpoint for proof in self.proofs.values()]
        return record.reason is Reason.CUT_OFF or (record.reason is Reason.PROOF and bool(consents) and all(consents))

    def hear(self, ballot: Ballot) -> bool:
        """Take a heartbeat. Returns False if it says of this group just what the last one said, and nothing that grows
        with time."""
        beat, now, group = ballot.heartbeat, ballot.received_at, self.group.name
        known, last, before = self.ballot(beat.site, now), self.ballots.get(beat.site), self._gists.get(beat.site)
        self.ballots[beat.site] = ballot
        said = ballot.statuses(group)
        if last is None or last.statuses(group) != said:
            self._hear_statuses(beat.site, said, now)
        if beat.site == self.gateway:
            self.brake.hear(ballot)
        # What other sites see counts by their votes alone.
        seen = tuple((seen.path, seen.bus) for seen in beat.observations) if beat.site == self.gateway else ()
        gist = (beat.late, beat.marks.get(group), seen, self._said.get(beat.site))
        self._gists[beat.site] = gist
        vote = ballot.vote(group)
        if known is None or gist != before or (vote is not None and vote.down):
            return True
        if beat.site != self.gateway:
            return False
        # Only of this gateway it matters for how long it has seen what it sees.
        waited = [one for one in (ballot, known) if one.somebody_waits]
        if any(one.unanswered_seconds(service.name) for one in waited for service in self.group.services):
            return True
        return any(path is not Path.UP for path, _ in seen)

    def _hear_statuses(self, site: str, said: Sequence[ServiceStatus], now: float) -> None:
        """What it says of its copies is not just what it said before."""
        self._said[site] = _gist(said)
        if not said:
            return  # of many services a site may not have said all yet: that is no word on them
        if any(status.gate_open for status in said):
            self._open_since.setdefault(site, now)
        else:
            self._open_since.pop(site, None)

    def prove(self, proof: Proof, record: GroupRecord) -> bool:
        """Keep a proof that is about this record's active, stamp and run; anything else is ignored."""
        about_us = proof.site == record.active and proof.stamp == record.stamp
        if proof.kind is ProofKind.EXITED:
            about_us = about_us and names_run(record.active_run, proof.service, proof.run)
        else:
            about_us = about_us and proof.gate_closed
        if about_us:
            self.proofs[proof.service] = proof
        return about_us

    # ------------------------------------------------------------------ what is known of a site

    def fresh(self, site: str, now: float) -> Heartbeat | None:
        """The site's last heartbeat if it is recent."""
        ballot = self.ballot(site, now)
        return None if ballot is None else ballot.heartbeat

    def ballot(self, site: str, now: float) -> Ballot | None:
        """The same, indexed by group."""
        ballot = self.ballots.get(site)
        if ballot is None or now - ballot.received_at > self.timing.window_seconds * BALLOT_WINDOWS:
            return None
        return ballot

    def is_heard(self, site: str, now: float) -> bool:
        """Does the site speak, as a live one does? A recent heartbeat may still be the last one of all."""
        ballot = self.ballots.get(site)
        return ballot is not None and now - ballot.received_at <= self.timing.window_seconds

    def statuses(self, site: str, now: float) -> dict[str, ServiceStatus]:
        """What the site says of its copies, by service; empty if that is not recent."""
        ballot = self.ballot(site, now)
        if ballot is None:
            return {}
        return {status.service: status for status in ballot.statuses(self.group.name)}

    def runs(self, site: str, now: float) -> str:
        """The runs of all services there, joined; empty unless the site has told of each."""
        statuses = self.statuses(site, now)
        if len(statuses) != len(self.group.services):
            return ""
        names = (service.name for service in self.group.services)
        return join_runs({name: statuses[name].run for name in names if name in statuses})

    def seen(self, site: str, now: float) -> Observation | None:
        """What the gateway beside this switcher sees of `site`."""
        beat = self.fresh(self.gateway, now)
        return next((one for one in beat.observations if one.subject == site), None) if beat else None

    def path_to(self, site: str, now: float) -> Path:
        """The path to `site` as the gateway beside this switcher sees it."""
        seen = self.seen(site, now)
        return seen.path if seen else Path.UNKNOWN

    def open_since(self, site: str) -> float | None:
        """Since when the site has said that its gate is open; None while it does not say so."""
        return self._open_since.get(site)

    def down(self, record: GroupRecord, now: float) -> tuple[str, ...]:
        """The voters who have lost the active, path and bus, under this stamp."""
        return down_votes(
            self.ballots,
            record.voters,
            group=record.group,
            active=record.active,
            stamp=record.stamp,
            now=now,
            age_max_seconds=self.timing.window_seconds * BALLOT_WINDOWS,
        )


def _gist(statuses: Sequence[ServiceStatus]) -> list[object]:
    """What they say that a group rests on, without ages and counters."""
    return [
        (s.service, s.run, s.role, s.protection, s.in_sync, s.gate_open, s.self_fenced, s.why, s.outgrown)
        for s in statuses
    ]
