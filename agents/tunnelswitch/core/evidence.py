"""What a switcher knows of one group, bound to the stamp it was learnt under, and what follows from it (PROTOCOL R5).

Four kinds: a proof suffices alone; suspicion needs Q configured voters; cut off and an operator's wish need the
active's consent, which is a proof of its own. A new stamp voids everything gathered before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tunnelswitch.core.braking import Brake
from tunnelswitch.core.facts import (
    Bus,
    DrainRequest,
    GroupRecord,
    Heartbeat,
    MoveRequest,
    Path,
    PauseRequest,
    PromoteFailed,
    Proof,
    ProofKind,
    Protection,
    Reason,
    ServiceStatus,
)
from tunnelswitch.core.member import Timing
from tunnelswitch.core.quorum import Ballot, down_votes, quorum
from tunnelswitch.core.runs import join_runs, names_run
from tunnelswitch.core.topology import Group

# A voter's word outlives one lost heartbeat, not more.
BALLOT_WINDOWS = 2
# BFD that lost a session sends one packet a second until it is back (RFC 5880, 6.8.3), and it takes three of them, in
# turns. With one packet in twenty lost, eight of eleven would have to be for a false alarm to last so long: below this,
# a path that is down is no reason to leave an active that lives. Clients without an answer are one much sooner.
PATH_DOWN_SECONDS = 10.0
# A gateway that has lost the active alone, path and bus, says so after this: a majority that agrees does it sooner.
ALONE_SECONDS = 1.0


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
        known, last, before = self._fresh(beat.site, now), self.ballots.get(beat.site), self._gists.get(beat.site)
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
        ballot = self._fresh(site, now)
        return None if ballot is None else ballot.heartbeat

    def _fresh(self, site: str, now: float) -> Ballot | None:
        ballot = self.ballots.get(site)
        if ballot is None or now - ballot.received_at > self.timing.window_seconds * BALLOT_WINDOWS:
            return None
        return ballot

    def is_heard(self, site: str, now: float) -> bool:
        """Does the site speak, as a live one does? A recent heartbeat may still be the last one of all."""
        ballot = self.ballots.get(site)
        return ballot is not None and now - ballot.received_at <= self.timing.window_seconds

    def statuses(self, site: str, now: float) -> dict[str, ServiceStatus]:
        ballot = self._fresh(site, now)
        if ballot is None:
            return {}
        return {status.service: status for status in ballot.statuses(self.group.name)}

    def runs(self, site: str, now: float) -> str:
        statuses = self.statuses(site, now)
        return (
            join_runs(
                {
                    service.name: statuses[service.name].run
                    for service in self.group.services
                    if service.name in statuses
                }
            )
            if len(statuses) == len(self.group.services)
            else ""
        )

    def path_to(self, site: str, now: float) -> Path:
        """The path to `site` as the gateway beside this switcher sees it."""
        beat = self.fresh(self.gateway, now)
        seen = next((o for o in beat.observations if o.subject == site), None) if beat else None
        return seen.path if seen else Path.UNKNOWN

    def promotable(self, record: GroupRecord, target: str, verdict: Verdict, now: float) -> tuple[str, ...]:
        """What is missing for `target` to take over; empty if nothing is (PROTOCOL R6)."""
        missing = []
        if not record.in_sync:
            why = "; ".join(status.why for status in self.statuses(record.active, now).values() if status.why)
            missing.append(f"record says that the standby is not in sync in this epoch{f' ({why})' if why else ''}")
        beat = self.fresh(target, now)
        if beat is None:
            missing.append(f"no fresh heartbeat from {target}")
            return tuple(missing)
        # A live active is not left for a path that is not up. A dead one is: BFD takes up to a second to come back from
        # a false alarm, and the heartbeat that just came took the same underlay.
        if verdict.consent_needed and self.path_to(target, now) is not Path.UP:
            missing.append(f"path from {self.gateway} to {target} is not up")
        if verdict.reason is Reason.CUT_OFF and self._waits(record, now):
            missing.append(f"{record.active} waits to be exposed, and {target} would have to wait as well")
        for service in self.group.services:
            status = self.statuses(target, now).get(service.name)
            if status is None:
                missing.append(f"{target} has not said how {service.name} is")
            elif not status.run:
                missing.append(f"{target} hosts no instance of {service.name}")
            elif record.in_sync and not names_run(record.standby_run, service.name, status.run):
                missing.append(f"{service.name} on {target} is another run than the one in sync")
            elif not status.in_sync and not (status.role == "active" and self._handed_over(service.name)):
                missing.append(f"{service.name} on {target} is not in sync{f' ({status.why})' if status.why else ''}")
        return tuple(missing)

    def _handed_over(self, service: str) -> bool:
        """Has the active closed for good with the standby holding all that clients saw? Then that may have resumed."""
        proof = self.proofs.get(service)
        return proof is not None and proof.final_checkpoint > 0

    def _waits(self, record: GroupRecord, now: float) -> bool:
        """Has the active taken over, and is held back only until it is known that the old one reaches nobody?"""
        statuses = self.statuses(record.active, now).values()
        ready = len(statuses) == len(self.group.services) and all(status.role == "active" for status in statuses)
        return ready and not any(status.gate_open or status.self_fenced for status in statuses)

    # ------------------------------------------------------------------ conclude

    def conclude(self, record: GroupRecord, now: float) -> Verdict | None:
        """The strongest verdict that the evidence bears, or None."""
        proof = next((proof for proof in self.proofs.values() if self._suffices(proof)), None)
        if proof is not None:
            what = f"{proof.site} proves: {proof.service} run {proof.run} {proof.kind} under {proof.stamp}"
            if proof.kind is ProofKind.FENCED and self.asked is not None:
                return Verdict(self.asked.reason, (what, *self.asked.evidence))
            return Verdict(Reason.PROOF, (what,))
        down = self.down(record, now)
        if len(down) >= quorum(len(record.voters)):
            return Verdict(
                Reason.SUSPICION, (f"path down and bus silent, say {', '.join(down)} of {len(record.voters)} voters",)
            )
        if self.proofs or any(status.self_fenced for status in self.statuses(record.active, now).values()):
            return None  # it closed itself under this stamp, so nothing more is asked of it: it is to be re-armed
        cut_off = self._cut_off(record, now)
        if cut_off is not None and not cut_off.against:
            return cut_off
        return self._wished(record) or self._drained(record) or cut_off

    def _suffices(self, proof: Proof) -> bool:
        """A gate that was to be closed as planned, and was closed for another reason, or by an agent that forgot the
        plan: the standby may lack what clients saw last. The active is well, and gets its service back."""
        planned = self.asked is not None and self.asked.reason is Reason.OPERATOR
        return proof.kind is ProofKind.EXITED or not planned or proof.final_checkpoint > 0

    def down(self, record: GroupRecord, now: float) -> tuple[str, ...]:
        return down_votes(
            self.ballots,
            record.voters,
            group=record.group,
            active=record.active,
            stamp=record.stamp,
            now=now,
            age_max_seconds=self.timing.window_seconds * BALLOT_WINDOWS,
        )

    def _cut_off(self, record: GroupRecord, now: float) -> Verdict | None:
        """The active lives, but this gateway's clients do not get through to it, while the standby's path is up."""
        if not self.statuses(record.active, now):
            return None  # not heard, or it has not said yet whether it could serve them at all
        ballot = self._fresh(self.gateway, now)
        target = self.group.other(record.active)
        if ballot is None or ballot.heartbeat.late or self.path_to(target, now) is not Path.UP:
            return None
        why = []
        seen = next((o for o in ballot.heartbeat.observations if o.subject == record.active), None)
        if seen is None or seen.bus is not Bus.ALIVE:
            return None
        # One that is just coming back is given the time to show its path, and to answer.
        heard_seconds = seen.bus_seconds
        path_lost = seen.path is Path.DOWN and seen.path_seconds >= PATH_DOWN_SECONDS
        if path_lost and heard_seconds >= self.timing.window_seconds:
            why.append(f"{self.gateway} sees the path to {record.active} down")
        unanswered = self._unanswered(record.active, ballot, heard_seconds, now)
        in_vain = not why and all(self.brake.holds(name) for name in unanswered)
        why += [f"clients of {name} unanswered for {ballot.unanswered_seconds(name):.3f} s" for name in unanswered]
        if not why:
            return None
        # A path that is down says enough of their silence: the copy behind it may be well.
        tried = unanswered if seen.path is Path.UP else ()
        against = (_in_vain(record, unanswered),) if in_vain else ()
        return Verdict(Reason.CUT_OFF, tuple(why), consent_needed=True, unanswered=tried, against=against)

    def _unanswered(self, active: str, ballot: Ballot, heard_seconds: float, now: float) -> tuple[str, ...]:
        """The services whose clients here have waited for too long. Nobody could answer while the gate was closed: that
        is no fault of the copy behind it."""
        patience_seconds, open_since = self.timing.unanswered_seconds, self._open_since.get(active)
        if open_since is not None and now - open_since < patience_seconds:
            return ()
        names = [service.name for service in self.group.services]
        return tuple(
            name
            for name in names
            if min(ballot.unanswered_seconds(name), heard_seconds) >= patience_seconds
            and (open_since is not None or not self.brake.holds(name))
        )

    def _wished(self, record: GroupRecord) -> Verdict | None:
        wish = self.wish
        if wish is None or wish.stamp != record.stamp or wish.target != self.group.other(record.active):
            return None
        return Verdict(Reason.OPERATOR, (f"{wish.asked_by} asks for {wish.target}",), consent_needed=True)

    def _drained(self, record: GroupRecord) -> Verdict | None:
        target = self.group.other(record.active)
        if record.active not in record.drained or target in record.drained:
            return None
        return Verdict(Reason.OPERATOR, (f"{record.active} is drained",), consent_needed=True)

    def half_seen(self, record: GroupRecord, now: float) -> str | None:
        """What only some see: bus silent with the path up, or both gone for this gateway and no majority that agrees.
        A fault to report, never one to move on."""
        beat = self.fresh(self.gateway, now)
        seen = next((o for o in beat.observations if o.subject == record.active), None) if beat else None
        if seen and seen.bus is Bus.SILENT and seen.path is Path.UP:
            return f"no heartbeats from {record.active} while its path is up: its agent or its bus has failed"
        if (
            seen
            and (seen.bus, seen.path) == (Bus.SILENT, Path.DOWN)
            and min(seen.bus_seconds, seen.path_seconds) >= ALONE_SECONDS
        ):
            return (
                f"{self.gateway} has lost {record.active}, path and bus, and too few of the other voters have: "
                "its clients wait until it is back or a majority has lost it"
            )
        return None

    # ------------------------------------------------------------------ protection

    def protection(self, record: GroupRecord, now: float) -> tuple[bool, str, str] | None:
        """What the record should say: (in_sync, active_run, standby_run), or None if that cannot be told now."""
        active = self.statuses(record.active, now)
        names = [service.name for service in self.group.services]
        if any(name not in active for name in names):
            return None
        if any(active[name].protection is Protection.STOPPED or active[name].role != "active" for name in names):
            return None
        target = self.group.other(record.active)
        standby = self.statuses(target, now)
        active_run = self.runs(record.active, now)
        in_sync = all(
            active[name].protection is Protection.PROTECTED
            and name in standby
            and standby[name].role == "standby"
            and standby[name].in_sync
            for name in names
        )
        if record.in_sync and not standby and active_run == record.active_run:
            # The standby's agent is not heard: its copy may be as good as ever. Only the active can say it is lost.
            in_sync = all(active[name].protection is Protection.PROTECTED for name in names)
            return (in_sync, active_run, record.standby_run if in_sync else "")
        return (in_sync, active_run, self.runs(target, now) if in_sync else "")


def _gist(statuses: Sequence[ServiceStatus]) -> list[object]:
    """What they say that a group rests on, without ages and counters."""
    return [
        (s.service, s.run, s.role, s.protection, s.in_sync, s.gate_open, s.self_fenced, s.why, s.outgrown)
        for s in statuses
    ]


def _in_vain(record: GroupRecord, services: tuple[str, ...]) -> str:
    return (
        f"clients of {' and '.join(services)} got no answer from {record.previous} either, and {record.active} "
        f"was made active for that: start the service anew at {record.active} (by hand: tunnelswitch switchover)"
    )
