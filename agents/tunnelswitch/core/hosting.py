"""One group at one server site: resume, expose, close, fence (PROTOCOL R2, R5, R6, R7).

Narrowing (closing the gate) follows any higher stamp at once. Widening (opening it) needs a leader-confirmed read of
the record and a certificate that the old active reaches nobody; a single gateway's own switch stands for both. Resuming
the service behind a closed gate is free and starts at once, beside everything else. A gate that this site closed under
a stamp stays closed under that stamp, also after a restart: OVSDB remembers (stamp stored, no tunnel end).
"""

from __future__ import annotations

from tunnelswitch.core import events
from tunnelswitch.core.actions import Action, Fence, Promote, Publish, ReadRecord
from tunnelswitch.core.alone import Alone
from tunnelswitch.core.certificate import Certificate
from tunnelswitch.core.confirmed import NEVER, Confirmed
from tunnelswitch.core.copies import Instance, confirm
from tunnelswitch.core.facts import (
    Applied,
    CheckpointSeen,
    GroupRecord,
    Handover,
    HandoverRefused,
    PromoteFailed,
    Proof,
    ProofKind,
    Protection,
    Reason,
    ServiceStatus,
    Serving,
)
from tunnelswitch.core.gate import Gate
from tunnelswitch.core.handing import HandingOver
from tunnelswitch.core.isolation import Isolation
from tunnelswitch.core.leftovers import Leftovers
from tunnelswitch.core.member import READ_DEADLINE_SECONDS, Member
from tunnelswitch.core.quorum import Ballot
from tunnelswitch.core.runs import names_run
from tunnelswitch.core.stamp import Stamp

DRIVER_DEADLINE_SECONDS = 5.0
PROMOTE_ATTEMPTS_MAX = 3
PROMOTE_ROUND_SECONDS = 2.0
REPEAT_SECONDS = 1.0
ERROR_MAX = 500


class HostedGroup:
    """What this site does for one group it may serve."""

    def __init__(self, member: Member, gate: Gate) -> None:
        self.member = member
        self.gate = gate
        self.group = gate.group
        self.site = gate.site
        self.certificate = Certificate(member)
        self.instances = {service.name: Instance.absent(service) for service in self.group.services}
        self.handing = HandingOver()
        self.latched: Stamp | None = None
        self._given_up: tuple[Stamp, str] | None = None
        self._stamp: Stamp | None = None
        self._stamp_at = 0.0
        self._confirmed = Confirmed()
        self._read_at = 0.0
        self._peer_serving: Stamp | None = None
        self._alone = Alone(
            gate, self.certificate, self._confirmed, self.instances, member.started_at, READ_DEADLINE_SECONDS
        )
        self.isolation = Isolation(member, gate, self._alone)
        self.leftovers = Leftovers(member, self._confirmed)
        self._repeat_at = 0.0
        self._served: tuple[int, str] | None = None
        self._told: Applied | None = None
        self._told_of: tuple[Stamp, frozenset[str]] | None = None
        self._said: tuple[ServiceStatus, ...] = ()
        self._said_of: tuple[bool, bool, list[events.ServiceSeen]] | None = None
        self._said_at = float("-inf")
        self._said_claims = False
        self._actions: list[Action] = []

    # ------------------------------------------------------------------ in

    def receive(self, event: object, now: float) -> None:
        """Take one event that concerns this group or all groups (a heartbeat as a ballot), then act on it."""
        if isinstance(event, Ballot):  # first: nearly all events are one
            if self._watch_peer(event, now):
                self.act(now)
            return
        self.gate.receive(event, now)
        match event:
            case events.RecordRead() if event.group == self.group.name and event.record is not None:
                self._confirmed.found(event.record.stamp, now)
            case events.SwitchApplied() if event.group == self.group.name and event.stamp == self.latched:
                self._repeat_at = now
            case Applied() | Proof() if event.group == self.group.name and self.record is not None:
                self.certificate.hear(event, self.record, now)
            case Serving() if event.group == self.group.name:
                self._peer_serving = event.stamp
            case Handover() if event.group == self.group.name:
                self._consent(event, now)
            case _:
                self._service_event(event, now)
        self.act(now)

    def _service_event(self, event: object, now: float) -> None:
        service = getattr(event, "service", None)
        instance = self.instances.get(service) if isinstance(service, str) else None
        if instance is None:
            return
        match event:
            case events.ServiceSeen():
                instance.saw(event, now)
            case CheckpointSeen():
                instance.took_checkpoint(event, now)
                self._actions.append(Publish(event))
            case events.RunExited():
                instance.exited(event.run)
                self._repeat_at = now
            case events.Promoted() if event.run != instance.exited_run:
                instance.promoted(event)
            case events.CheckpointTaken() | events.CheckpointFailed():
                self.handing.heard(event)
            case events.PromotionFailed():
                instance.busy_until = 0.0
                self._promotion_failed(instance, event, now)
            case events.FenceDone() | events.FenceFailed():
                instance.busy_until = now + (0.0 if isinstance(event, events.FenceDone) else REPEAT_SECONDS)
            case _:
                pass

    def _promotion_failed(self, instance: Instance, event: events.PromotionFailed, now: float) -> None:
        """After a round of attempts this site closes itself for good under this stamp, and then says so: whatever comes
        up here after all, no client sees it, and the old copy can be given back. If that is gone, this site is armed
        anew, and there is another round a while later, because nobody else is left."""
        record = self.record
        if record and record.active == self.site and instance.promote_attempts >= PROMOTE_ATTEMPTS_MAX:
            instance.promote_attempts, instance.busy_until = 0, now + PROMOTE_ROUND_SECONDS
            self.latched, self._given_up, self._repeat_at = record.stamp, (record.stamp, event.error), now

    def _tell_failed(self, record: GroupRecord, error: str) -> None:
        failed = PromoteFailed(self.site, self.group.name, record.stamp, error[:ERROR_MAX])
        self._actions.append(Publish(failed))

    def _consent(self, request: Handover, now: float) -> None:
        """Asked to hand over under the very stamp we serve. Where clients do not get through, close for good under it,
        whoever follows; as planned, only when the standby has all that they saw."""
        record = self.record
        if not record or record.active != self.site or request.stamp != record.stamp or request.target == self.site:
            return
        self._repeat_at = 0.0
        if request.reason is not Reason.CUT_OFF and self.latched != record.stamp:
            self.handing.begin(record.stamp, self._stamp_at, self.instances.values(), now)
        elif request.reason is Reason.CUT_OFF:
            self.handing.drop()
            self.latched = record.stamp

    def _watch_peer(self, ballot: Ballot, now: float) -> bool:
        """What others see of the old active; the word of the new one that it serves stands in for a lost `serving`.
        Returns whether something may follow from it; what time alone brings has its deadline."""
        record, beat = self.record, ballot.heartbeat
        if record is None:
            return False
        if len(record.gateways) > 1:
            self.certificate.hear(beat, record, now)
        if record.active == self.site:
            if beat.site == self.group.other(self.site):
                confirm(self.instances, record, ballot.statuses(self.group.name), now)
            return not self.gate.open
        if beat.site != record.active or beat.marks.get(self.group.name) != record.stamp:
            return record.stamp != self._stamp
        mine = ballot.statuses(self.group.name)
        news = record.stamp != self._stamp
        if mine and all(status.role == "active" and status.gate_open for status in mine):
            news = news or self._peer_serving != record.stamp
            self._peer_serving = record.stamp
        return news

    # ------------------------------------------------------------------ decide

    @property
    def record(self) -> GroupRecord | None:
        return self.member.records.get(self.group.name)

    def act(self, now: float) -> None:
        """Bring this site to what the record says."""
        record = self.record
        if record is None:
            return
        if record.stamp != self._stamp:
            self._stamp, self._stamp_at, self._repeat_at = record.stamp, now, 0.0
            self.handing.drop()
            for instance in self.instances.values():
                instance.promote_attempts = 0
        if record.active == self.site:
            self._lead(record, now)
        else:
            self._follow(record, now)
        action = self.gate.step(now)
        if action is not None:
            self._actions.append(action)
        self._tell_applied(record)
        unprotected = record.active == self.site and self.latched != record.stamp and not self._claims_standby()
        self._actions.extend(self._alone.words(record, unprotected=unprotected, repeated=self._repeat_at <= now))
        if self._repeat_at <= now:
            self._repeat_at = now + REPEAT_SECONDS
            self._prove(record)
            if self._told is not None and self.gate.settled(record.stamp):
                self._actions.append(Publish(self._told))

    def _lead(self, record: GroupRecord, now: float) -> None:
        gate, stamp = self.gate, record.stamp
        if not gate.seen:
            self.isolation.due_at = None
            return
        self._check_isolation(record, now)
        self._hand_over(record, now)
        stored = gate.stored
        if not gate.open and stored == stamp and not gate.asked(stamp, self.site):
            self.latched = stamp
        if self.latched == stamp:
            gate.want(stamp, None)
            return
        for instance in self.instances.values():
            self._resume(instance, record, now)
        # Which site is active never changes within one decision: a gate open under it stays open through re-arms.
        going_on = (
            gate.open and stored is not None and (stored.epoch, stored.decision_id) == (stamp.epoch, stamp.decision_id)
        )
        if going_on or self._may_expose(record, now):
            gate.want(stamp, self.site)
            self._say_serving(record)
        elif stored != stamp and gate.asked_for(self.site):
            gate.rest()  # it was not opened while it might have been, under this stamp or an earlier one

    def _hand_over(self, record: GroupRecord, now: float) -> None:
        handing, stamp, before = self.handing, record.stamp, self.handing.phase
        if handing.step(stamp, self.instances.values(), now, closed=self._closed_for_good(stamp)):
            self.latched = stamp
        if handing.phase is not before:
            self._repeat_at = now
        self._actions.extend(handing.take_actions())
        if refusal := handing.take_refusal():
            self._actions.append(Publish(HandoverRefused(self.site, self.group.name, stamp, refusal[:ERROR_MAX])))

    def _closed_for_good(self, stamp: Stamp) -> bool:
        return self.latched == stamp and self.gate.settled(stamp) and not self.gate.open

    def _may_expose(self, record: GroupRecord, now: float) -> bool:
        single = len(record.gateways) == 1
        waits = len(self.instances) > 1 or not single
        if waits and any(instance.seen.role != "active" for instance in self.instances.values()):
            return False  # all services of a group or none: what one has served could not be given back with the others
        if single:
            # Its switch is the certificate: until it has applied this stamp, nothing that we answer reaches a client,
            # so our end may open beside it, on the word of whoever committed.
            return True
        if not self.certificate.is_marked(record):
            return False
        return self._is_confirmed(record.stamp, now) and self.certificate.of(record, now) is not None

    def _is_confirmed(self, stamp: Stamp, now: float) -> bool:
        if self._confirmed.at(stamp) > NEVER:
            return True
        if now >= self._read_at:
            self._read_at = now + READ_DEADLINE_SECONDS
            self._actions.append(ReadRecord(self.group.name, READ_DEADLINE_SECONDS))
        return False

    def _resume(self, instance: Instance, record: GroupRecord, now: float) -> None:
        seen = instance.seen
        if seen.role != "standby" or not seen.run or now < instance.busy_until:
            return
        if record.active_run and not names_run(record.active_run, seen.service, seen.run):
            return  # it started after the record was written: it holds nobody's state
        instance.promote_attempts += 1
        instance.busy_until = now + DRIVER_DEADLINE_SECONDS
        self._actions.append(Promote(seen.service, seen.run, record.stamp, record.reason, DRIVER_DEADLINE_SECONDS))

    def _say_serving(self, record: GroupRecord) -> None:
        decision = (record.stamp.epoch, record.stamp.decision_id)
        if self._served == decision or not self.gate.settled(record.stamp):
            return
        if all(instance.seen.role == "active" for instance in self.instances.values()):
            self._served = decision
            seconds = max(instance.promote_seconds for instance in self.instances.values())
            self._actions.append(Publish(Serving(self.site, self.group.name, record.stamp, seconds)))

    def _check_isolation(self, record: GroupRecord, now: float) -> None:
        self.isolation.due_at = None
        if self.latched != record.stamp and self.isolation.is_due(record, now):
            self.latched = record.stamp

    def _claims_standby(self) -> bool:
        """Do we say that all that we serve has a standby in sync, or are we that standby?"""
        return all(instance.seen.protection is Protection.PROTECTED for instance in self.instances.values())

    def _follow(self, record: GroupRecord, now: float) -> None:
        self.isolation.due_at = None
        self.gate.want(record.stamp, record.active)
        if self.gate.open:
            return
        for instance in self.instances.values():
            seen = instance.seen
            replaced = seen.role == "active" and self._peer_serving == record.stamp
            of_no_use = replaced or self.leftovers.has(instance, record, now)
            if of_no_use and seen.run and now >= instance.busy_until:
                instance.busy_until = now + DRIVER_DEADLINE_SECONDS
                fence = Fence(seen.service, seen.run, record.stamp, record.reason, DRIVER_DEADLINE_SECONDS)
                self._actions.append(fence)

    # ------------------------------------------------------------------ out

    def _tell_applied(self, record: GroupRecord) -> None:
        """Say once that this site's own ends follow the stamp."""
        follows = (record.stamp, self.gate.present)
        if follows != self._told_of and self.gate.settled(record.stamp):
            self._told_of = follows
            self._told = Applied(self.site, self.group.name, record.stamp, tuple(sorted(self.gate.present)), 0.0)
            self._actions.append(Publish(self._told))

    def _prove(self, record: GroupRecord) -> None:
        """Proofs are repeated while they matter: one message may be lost."""
        closed = self._closed_for_good(record.stamp)
        if closed and self._given_up is not None and self._given_up[0] == record.stamp:
            self._tell_failed(record, self._given_up[1])
        for name, instance in self.instances.items():
            kind = None
            run = instance.exited_run
            if record.active == self.site and names_run(record.active_run, name, run):
                kind = ProofKind.EXITED
                if not instance.exited_had_served:
                    self._tell_failed(record, f"run {run} of {name} ended before it took over")
            elif closed and self.handing.may_prove(record.stamp):
                kind, run = ProofKind.FENCED, instance.seen.run or run
            if kind is not None:
                final = self.handing.final_checkpoint(record.stamp, name)
                told = (self.group.name, name, self.site, record.stamp, run, self.member.incarnation, kind)
                proof = Proof(*told, gate_closed=not self.gate.open, final_checkpoint=final)
                self._actions.append(Publish(proof, flush=True))

    def statuses(self, now: float, *, age_max_seconds: float = 0.0) -> tuple[ServiceStatus, ...]:
        """For the heartbeat. While only numbers and ages of checkpoints change, the same tuple for so long."""
        record, gate_open = self.record, self.gate.open
        latched = record is not None and self.latched == record.stamp and not self.handing.is_under_way(record.stamp)
        of = (gate_open, latched, [instance.seen for instance in self.instances.values()])
        if now - self._said_at >= age_max_seconds or of != self._said_of:
            self._said_at, self._said_of = now, of
            self._said = tuple(
                instance.status(self.group.name, now, gate_open=gate_open, self_fenced=latched)
                for instance in self.instances.values()
            )
            self._said_claims = self._claims_standby() and all(status.role == "active" for status in self._said)
        if self._said_claims:
            self._alone.claims(now)
        return self._said

    def deadline(self) -> float | None:
        if self.record is None:
            return None
        first, gate = self._repeat_at, self.gate.deadline()
        if gate is not None and gate < first:
            first = gate
        for due in (self.isolation.due_at, self.handing.due_at()):
            if due is not None and self.gate.seen and due < first:
                first = due
        return first

    def take_actions(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions
