"""One group at one switcher: conclude, commit, announce, apply (PROTOCOL R1, R5, R6).

Nothing acts before the commit is acknowledged. A record below a stamp that the gateway's OVSDB already holds is an
alarm: nothing is believed of it, and it is raised above that stamp with the active that the traffic really goes to.
"""

from __future__ import annotations

from dataclasses import replace

from tunnelswitch.core import concluding, events
from tunnelswitch.core.actions import Action, PinLeader, Publish
from tunnelswitch.core.amending import moved, raised, rearmed
from tunnelswitch.core.evidence import Evidence, Verdict
from tunnelswitch.core.facts import (
    Applied,
    DrainRequest,
    Epoch,
    GroupRecord,
    Handover,
    HandoverRefused,
    MoveRequest,
    PauseRequest,
    PlanRequest,
    PromoteFailed,
    Proof,
    Reason,
    Serving,
)
from tunnelswitch.core.gate import Gate, running_at
from tunnelswitch.core.housekeeping import Housekeeping
from tunnelswitch.core.keeping import News, RecordKeeper, signed
from tunnelswitch.core.marks import Marks
from tunnelswitch.core.moving import Move
from tunnelswitch.core.policy import Policy
from tunnelswitch.core.quorum import Ballot
from tunnelswitch.core.saying import Sayings
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.standing import StandingWishes
from tunnelswitch.core.wishes import Wishes

RECONCILE_SECONDS = 1.0
# So many reads in a row without an answer are no hiccup.
READS_FAILED_MAX = 3


class GroupDecider:
    """Decides for one group and keeps its gateway on the committed epoch.

    Args:
        decider: name under which decisions are signed, unique per start of the process.
        unix_offset_seconds: Unix time less this process' clock, for reports only.

    Attributes:
        in_vain: do clients wait for whom no move is made, because the last one did not help them?
    """

    def __init__(self, evidence: Evidence, gate: Gate, *, decider: str, unix_offset_seconds: float) -> None:
        self.evidence = evidence
        self.gate = gate
        self.group = evidence.group
        self.decider = decider
        self.kept = RecordKeeper(self.group.name)
        self.in_vain = False
        self._unix = unix_offset_seconds
        self._marks = Marks(evidence, gate)
        self._house = Housekeeping(evidence, unix_offset_seconds)
        self._standing = StandingWishes(evidence)
        self._policy = Policy(self.group)
        self._wishes = Wishes(evidence, self._say, self._policy.against)
        self._sayings = Sayings(gate.site, self.group.name)
        self._counter = 0
        self._reads_failed = 0
        self._unread = False
        self._reconcile_at = 0.0
        self._asked_at = float("-inf")
        self._move: Move | None = None
        self._told: Stamp | None = None
        self._actions: list[Action] = []

    @property
    def record(self) -> GroupRecord | None:
        """The record in force here."""
        return self.kept.record

    # ------------------------------------------------------------------ in

    def receive(self, event: object, now: float) -> None:
        """Take one fact or result (a heartbeat as a ballot), then decide."""
        if isinstance(event, Ballot):  # first: nearly all events are one
            self._marks.heed(event.heartbeat.marks.get(self.group.name))
            if self.evidence.hear(event):
                self.decide(now)
            return
        self.gate.receive(event, now)
        match event:
            case Epoch() | events.Committed() if event.record.group == self.group.name:
                self._hear_record(event, now)
            case _ if getattr(event, "group", None) == self.group.name:
                self._hear_fact(event, now)
                self._hear_result(event, now)
        self.decide(now)

    def _hear_record(self, event: Epoch | events.Committed, now: float) -> None:
        if isinstance(event, events.Committed):
            self._committed(event.record, event.revision, now)
        elif self.record is not None and event.record.stamp > self.record.stamp:
            # Another switcher's word, or the store's own, which can be quicker than the answer to our commit.
            if self._move is not None:
                self._move.mark(event.record.stamp, committed=now)
            self._enforce(event.record, None, now)

    def _hear_fact(self, event: object, now: float) -> None:
        match event:
            case Proof() if self.record is not None:
                self.evidence.prove(event, self.record)
            case MoveRequest() | PlanRequest() | DrainRequest() | PauseRequest():
                self._sayings.again()
                self._wishes.hear(event, self.record, now)
            case HandoverRefused():
                if self._wishes.refused(event, self.record, now):
                    self._standing.again()
            case PromoteFailed():
                self._say(now, "alarm", f"{event.site} could not take over under {event.stamp}: {event.error}")
                self.evidence.promote_failed = event
            case Serving() if self._move is not None:
                self._move.mark(event.stamp, promoted=now)
            case _:
                pass

    def _hear_result(self, event: object, now: float) -> None:
        match event:
            case events.RecordRead():
                self._have_read(event, now)
            case events.ReadFailed():
                self.kept.read_failed(now)
                self._reads_failed += 1
                if self._reads_failed >= READS_FAILED_MAX:
                    self._say(now, "alarm", f"the epoch store cannot be read, and nothing is decided: {event.error}")
            case events.CommitRefused():
                self.kept.refused()
            case events.CommitUnknown():
                self.kept.unknown()
            case events.SwitchApplied():
                self._switched(event)
            case events.SwitchFailed():
                self._say(now, "alarm", f"the switch at {self.gate.site} failed: {event.error}")
            case _:
                pass

    def _have_read(self, answer: events.RecordRead, now: float) -> None:
        self._reads_failed = 0
        known, above = self.record, self._marks.above(self.record)
        news = self.kept.have_read(answer, now)
        # A mark above a confirmed read: somebody was quicker, or the store forgot. The next read tells.
        self._marks.have_read(above, self._marks.above(self.record))
        if news is News.MISSING:
            remedy = "`tunnelswitch init` if there never was one, `recover` if it is lost"
            self._say(now, "alarm", f"no record in the epoch store, so nothing is decided: {remedy}")
        elif news is News.IN_FORCE:
            self._in_force(known, now)
        elif news is News.COMMITTED and answer.record is not None:
            self._committed(answer.record, answer.revision, now)
        elif news is News.WENT_BACK and answer.record is not None and known is not None:
            self._say(now, "alarm", f"the epoch store went back to {answer.record.stamp}, below {known.stamp}")
            self._raise(known, max(known.stamp, above or known.stamp), now)

    # ------------------------------------------------------------------ decide

    def decide(self, now: float) -> None:
        """What follows from all that is known now."""
        self._house.due_at = self._standing.due_at = None
        if now >= self._reconcile_at:
            self._reconcile(now)
        record = self.record
        if record is not None:
            self._apply(record, now)
            if self.kept.can_commit:
                if (above := self._marks.above(record)) is not None:
                    self._below(record, above, now)
                elif not self._go_back(record, now):
                    self._conclude(record, now)
        if self._move is not None and (report := self._move.report(now, self._unix)) is not None:
            self._move = None
            self._actions.append(Publish(report))
        read = self.kept.step(now)
        if read is not None:
            self._actions.append(read)

    def _conclude(self, record: GroupRecord, now: float) -> None:
        verdict = concluding.conclude(self.evidence, record, now) or self._standing.verdict(record, now)
        self.in_vain = verdict is not None and bool(verdict.against)
        if verdict is None:
            half = concluding.half_seen(self.evidence, record, now)
            if half:
                self._say(now, "alarm", half)
            self._keep_house(record, now)
            return
        target = self.group.other(record.active)
        missing = self._wishes.against(record, target, verdict, now)
        if missing:
            self._say(now, "refuse", f"{verdict.reason}: {'; '.join(missing)}", verdict.evidence)
            self.evidence.wish = None  # a wish refused is not carried out when nobody expects it any more
            # A site that closed itself for nobody's sake gets its service back, and a standby that is in sync again may
            # be just what was missing.
            self._keep_house(record, now)
        elif verdict.consent_needed:
            self._ask(record, target, verdict, now)
            self._keep_house(record, now)  # the active may not consent for long: what it says meanwhile holds
        else:
            self._go(record, target, record.standby_run, verdict, now)

    def _go_back(self, record: GroupRecord, now: float) -> bool:
        """A target that could not take over was never exposed, and has closed itself for good, so the old copy, closed
        and not yet destroyed, is whole: a new epoch gives it back (PROTOCOL R7)."""
        failed = self.evidence.promote_failed
        if failed is None or failed.stamp != record.stamp or failed.site != record.active:
            return False
        if not self.evidence.is_heard(record.previous, now):
            return False
        runs = self.evidence.runs(record.previous, now)
        statuses = self.evidence.statuses(record.previous, now)
        if not runs or any(status.role != "active" for status in statuses.values()):
            return False
        verdict = Verdict(Reason.PROMOTE_FAILED, (f"{failed.site}: {failed.error}",))
        # What cannot be emptied is not drained: else it would be tried for ever.
        drained = tuple(site for site in record.drained if site != record.previous)
        self._go(replace(record, drained=drained), record.previous, runs, verdict, now)
        return True

    def _ask(self, record: GroupRecord, target: str, verdict: Verdict, now: float) -> None:
        """Consent first: the active closes its gate and says so, which is a proof. Asked again each second."""
        self.evidence.asked = verdict
        if now - self._asked_at < RECONCILE_SECONDS:
            return
        self._asked_at = now
        self._say(now, "ask", f"{verdict.reason}: {record.active} is asked to hand over to {target}", verdict.evidence)
        request = Handover(self.group.name, record.stamp, target, verdict.reason, self.decider)
        self._actions.append(Publish(request, flush=True))

    def _go(self, record: GroupRecord, target: str, run: str, verdict: Verdict, now: float) -> None:
        changed = moved(record, self._next_stamp(record), target, run, verdict)
        self._move = Move.begin(changed, record, self.evidence, now)
        self._send_commit(changed, now)
        self._say(now, "commit", f"{verdict.reason}: {record.active} -> {target}", verdict.evidence)

    def _next_stamp(self, record: GroupRecord) -> Stamp:
        self._counter += 1
        return Stamp(self._marks.next_epoch(record), f"{self.decider}.{self._counter}")

    def _keep_house(self, record: GroupRecord, now: float) -> None:
        """Changes of the record that move nobody."""
        changed = self._house.change(record, now)
        if changed is not None:
            self._rearm(changed, now)

    def _rearm(self, changed: GroupRecord, now: float) -> None:
        changed = rearmed(changed)
        self._send_commit(changed, now)
        self._say(now, "commit", f"{changed.reason} under {changed.stamp}", changed.evidence)

    def _below(self, record: GroupRecord, mark: Stamp, now: float) -> None:
        """Somebody follows a higher stamp than the record in force: a newer one is on its way, or the store forgot."""
        if self.gate.seen and self.gate.fenced:
            self._say(now, "refuse", f"fenced: {self.gate.site} holds {self.gate.stored}, above {record.stamp}")
        if self._marks.forgotten:
            self._raise(record, mark, now)

    def _raise(self, record: GroupRecord, mark: Stamp, now: float) -> None:
        """Above every mark, with the active that the clients' traffic goes to: nothing moves."""
        if not self.kept.can_commit:
            return
        active = self._marks.active_under(record, mark, now)
        if active is None:
            self._say(now, "alarm", f"the store forgot {mark}, and no tunnel shows who served under it")
            return
        changed = raised(record, self._next_stamp(record), active)
        self._send_commit(changed, now)
        self._say(now, "commit", f"recovery: {active} stays active", changed.evidence)

    # ------------------------------------------------------------------ act

    def _send_commit(self, record: GroupRecord, now: float) -> None:
        self._actions.append(self.kept.commit(signed(record, self.decider, now + self._unix), now))

    def _committed(self, record: GroupRecord, revision: int, now: float) -> None:
        self.kept.acknowledged()
        if self.record is not None and record.stamp < self.record.stamp:
            self.kept.want_read()  # somebody was quicker than the answer
            return
        if self._move is not None:
            self._move.mark(record.stamp, committed=now)
        # The standby hears first, then this gateway switches; the leader's place can wait for the next reconciliation.
        self._actions.append(Publish(Epoch(record), flush=True))
        self._enforce(record, revision, now)
        self._apply(record, now)

    def _enforce(self, record: GroupRecord, revision: int | None, now: float) -> None:
        known = self.record
        self.kept.enforce(record, revision, now)
        self._in_force(known, now)

    def _in_force(self, before: GroupRecord | None, now: float) -> None:
        """Another record is in force: what was gathered under the old stamp is void."""
        assert self.record is not None
        if before is not None and before.active != self.record.active:
            self.evidence.moved(self.record)
            self._policy.moved(self.record, now)
        self.evidence.brake.follow(self.record)
        if before is not None and bool(before.paused) != bool(self.record.paused):
            self._wishes.tell_paused(self.record, now)
        self._marks.in_force(self.record.stamp)
        self._house.void()
        self.evidence.void()

    def _apply(self, record: GroupRecord, now: float) -> None:
        self.gate.want(record.stamp, running_at(record, self.gate.site))
        action = self.gate.step(now)
        if action is not None:
            self._actions.append(action)
        if self.gate.settled(record.stamp) and self._told != record.stamp:
            self._tell_applied(record, 0.0)

    def _switched(self, event: events.SwitchApplied) -> None:
        if self._move is not None:
            self._move.mark(event.stamp, switched=event.committed_at, applied=event.applied_at)
        if self.record is not None and self.gate.settled(self.record.stamp):
            self._tell_applied(self.record, event.applied_at - event.submitted_at)

    def _tell_applied(self, record: GroupRecord, seconds: float) -> None:
        self._told = record.stamp
        present = tuple(sorted(self.gate.present))
        self._actions.append(Publish(Applied(self.gate.site, self.group.name, record.stamp, present, seconds)))

    # ------------------------------------------------------------------ time

    def _reconcile(self, now: float) -> None:
        """Algorithm 1 says "repeat": events make it fast, this makes it right."""
        self._reconcile_at = now + RECONCILE_SECONDS
        # A commit that may be about to follow is not made to wait for the mark of a read; the next time it is read.
        self._unread = self.record is not None and not self._unread and bool(self.evidence.down(self.record, now))
        if not self._unread:
            self.kept.want_read()
        if self.record is None:
            return
        self._actions.append(PinLeader((self.record.active,)))
        if self.gate.settled(self.record.stamp):
            self._tell_applied(self.record, 0.0)

    def deadline(self) -> float:
        """When time alone may change something."""
        first = self._reconcile_at
        for time in (self.kept.deadline(), self.gate.deadline(), self._house.due_at, self._standing.due_at):
            if time is not None and time < first:
                first = time
        return first

    def _say(self, now: float, action: str, reason: str, evidence: tuple[str, ...] = ()) -> None:
        """Publish a decision or refusal, unless it is being said already."""
        stamp = self.record.stamp if self.record else Stamp(0, "none")
        decision = self._sayings.new(stamp, action, reason, evidence, now)
        if decision is not None:
            self._actions.append(Publish(decision))

    def take_actions(self) -> list[Action]:
        """What to do, in order."""
        actions, self._actions = self._actions, []
        return actions
