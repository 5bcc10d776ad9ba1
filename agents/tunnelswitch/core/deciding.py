"""One group at one switcher: conclude, commit, announce, apply (DESIGN 5.2 to 5.4, PROTOCOL R1, R6).

Nothing acts before the commit is acknowledged. The record in force is the highest stamp that came from an acknowledged
commit, a leader-confirmed read or another switcher's announcement. A record below a stamp that the gateway's OVSDB
already holds is an alarm: nothing is believed of it, and it is raised above that stamp with the active that the traffic
really goes to.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tunnelswitch.core import events
from tunnelswitch.core.actions import Action, CommitRecord, PinLeader, Publish, ReadRecord
from tunnelswitch.core.evidence import Evidence, Verdict
from tunnelswitch.core.facts import (
    Applied,
    Decision,
    Epoch,
    Failover,
    GroupRecord,
    Handover,
    Heartbeat,
    MoveRequest,
    PromoteFailed,
    Proof,
    Reason,
    Serving,
)
from tunnelswitch.core.gate import Gate
from tunnelswitch.core.quorum import quorum
from tunnelswitch.core.stamp import Stamp

COMMIT_DEADLINE_SECONDS = 1.0
READ_DEADLINE_SECONDS = 0.5
RECONCILE_SECONDS = 1.0
REPORT_WAIT_SECONDS = 5.0
# A condition not seen for so long has ended.
SAID_SECONDS = 3.0
# The active's word that its standby is lost must stand for so long before the record says so.
PROTECTION_HOLD_SECONDS = 0.3


@dataclass(slots=True)
class _Commit:
    record: GroupRecord
    abandon_at: float
    verdict_at: float
    unknown: bool = False


@dataclass(slots=True)
class _Report:
    """The marks of a move under way, in seconds of this process' clock."""

    record: GroupRecord
    publish_at: float
    marks: dict[str, float] = field(default_factory=dict)


class GroupDecider:
    """Decides for one group and keeps its gateway on the committed epoch.

    Args:
        decider: name under which decisions are signed, unique per start of the process.
        unix_offset_seconds: Unix time less this process' clock, for reports only.
    """

    def __init__(self, evidence: Evidence, gate: Gate, *, decider: str, unix_offset_seconds: float) -> None:
        self.evidence = evidence
        self.gate = gate
        self.group = evidence.group
        self.decider = decider
        self.record: GroupRecord | None = None
        self.revision: int | None = None
        self.missing = False
        self._unix = unix_offset_seconds
        self._highest_epoch = 0
        self._counter = 0
        self._commit: _Commit | None = None
        self._read_sent_at = float("-inf")
        self._reconcile_at = 0.0
        self._moved_at: float | None = None
        self._protection: tuple[tuple[bool, str, str], float] | None = None
        self._asked_at = float("-inf")
        self._report: _Report | None = None
        self._said: dict[tuple[str, str], float] = {}
        self._house_at: float | None = None
        self._told: Stamp | None = None
        self._below_mark = 0
        self._actions: list[Action] = []

    # ------------------------------------------------------------------ in

    def receive(self, event: object, now: float) -> None:
        match event:
            case Heartbeat():
                self.evidence.hear(event, now)
                mark = event.marks.get(self.group.name)
                self._highest_epoch = max(self._highest_epoch, mark.epoch if mark else 0)
            case Proof() if event.group == self.group.name and self.record is not None:
                self.evidence.prove(event, self.record)
            case MoveRequest() if event.group == self.group.name:
                self._wish(event, now)
            case Epoch() if event.record.group == self.group.name:
                if self.record is not None and event.record.stamp > self.record.stamp:
                    self._enforce(event.record, None, now)
                    self._read(now)
            case PromoteFailed() if event.group == self.group.name:
                self._say(now, "alarm", f"{event.site} could not take over under {event.stamp}: {event.error}")
                self.evidence.promote_failed = event
            case Serving() if event.group == self.group.name:
                self._mark_promoted(event, now)
            case events.DataPlaneSeen():
                self.gate.saw(event)
            case events.DataPlaneLost():
                self.gate.lost()
            case _:
                self._answer(event, now)
        self.decide(now)

    def _answer(self, event: object, now: float) -> None:
        """Results of actions of ours; those of other groups are not ours to take."""
        if isinstance(event, events.Committed):
            if event.record.group == self.group.name:
                self._committed(event.record, event.revision, now)
            return
        if getattr(event, "group", None) != self.group.name:
            return
        match event:
            case events.RecordRead():
                self._have_read(event, now)
            case events.ReadFailed():
                self._read_sent_at = now
            case events.CommitRefused():
                self._commit = None
                self._read(now)
            case events.CommitUnknown() if self._commit is not None:
                self._commit.unknown = True
                self._read(now)
            case events.SwitchApplied():
                self._switched(event)
            case events.SwitchConflict():
                self.gate.conflicted(event, now)
            case events.SwitchFailed():
                self.gate.failed(event, now)
                self._say(now, "alarm", f"the switch at {self.gate.site} failed: {event.error}")
            case _:
                pass

    def _wish(self, request: MoveRequest, now: float) -> None:
        if self.record is None or request.stamp != self.record.stamp:
            self._say(now, "refuse", f"{request.asked_by} asks under {request.stamp}, which is not in force")
            return
        self.evidence.wish = request

    def _have_read(self, event: events.RecordRead, now: float) -> None:
        pending = self._commit
        self._read_sent_at = float("-inf")
        if event.record is None:
            self.missing = True
            self._say(
                now, "alarm", "no record in the epoch store: nothing is decided until `tunnelswitch init` or recovery"
            )
            return
        self.missing = False
        if pending is not None and pending.unknown:
            self._commit = None
            if event.record.stamp == pending.record.stamp:
                self._committed(pending.record, event.revision, now, pending)
                return
        known = self.record
        if known is None or event.record.stamp > known.stamp:
            self._enforce(event.record, event.revision, now)
        elif event.record.stamp == known.stamp:
            self.revision = event.revision
        else:
            self.revision = event.revision
            self._say(now, "alarm", f"the epoch store went back to {event.record.stamp}, below {known.stamp}")
            self._raise(known, now)

    # ------------------------------------------------------------------ decide

    def decide(self, now: float) -> None:
        """What follows from all that is known now."""
        record = self.record
        self._house_at = None
        if self._commit is not None and now >= self._commit.abandon_at:
            self._commit.unknown = True
            self._commit.abandon_at = now + COMMIT_DEADLINE_SECONDS
            self._read(now)
        if now >= self._reconcile_at:
            self._reconcile(now)
        if record is None:
            return
        self._apply(record, now)
        if self._commit is None and self.revision is not None and not self.missing:
            if self.gate.seen and self.gate.fenced:
                self._fenced(record, now)
            else:
                self._conclude(record, now)
        self._finish_report(now)

    def _conclude(self, record: GroupRecord, now: float) -> None:
        if self._go_back(record, now):
            return
        verdict = self.evidence.conclude(record, now)
        if verdict is None:
            half = self.evidence.half_seen(record, now)
            if half:
                self._say(now, "alarm", half)
            self._keep_house(record, now)
            return
        target = self.group.other(record.active)
        missing = list(self.evidence.promotable(record, target, now))
        if not self.group.automatic and verdict.reason is not Reason.OPERATOR:
            missing.append("automatic failover is off (policy.automatic)")
        if verdict.reason is Reason.SUSPICION and self._moved_at is not None:
            left = self._moved_at + self.group.hysteresis_seconds - now
            if left > 0:
                missing.append("hysteresis: the last move is too recent (policy.hysteresis_seconds)")
        self._protection = None
        if missing:
            self._say(now, "refuse", f"{verdict.reason}: {'; '.join(missing)}", verdict.evidence)
            # A site that closed itself for nobody's sake gets its service back.
            self._rearm_fenced(record, now)
        elif verdict.consent_needed:
            self._ask(record, target, verdict, now)
        else:
            self._move(record, target, record.standby_run, verdict, now)

    def _go_back(self, record: GroupRecord, now: float) -> bool:
        """A target that could not take over was never exposed, so the old copy, closed and not yet destroyed, is whole:
        a new epoch gives it back (PROTOCOL R7)."""
        failed = self.evidence.promote_failed
        if failed is None or failed.stamp != record.stamp or failed.site != record.active:
            return False
        runs = self.evidence.runs(record.previous, now)
        statuses = self.evidence.statuses(record.previous, now)
        if not runs or any(status.role != "active" for status in statuses.values()):
            return False
        verdict = Verdict(Reason.PROMOTE_FAILED, (f"{failed.site}: {failed.error}",))
        self._move(record, record.previous, runs, verdict, now)
        return True

    def _ask(self, record: GroupRecord, target: str, verdict: Verdict, now: float) -> None:
        """Consent first: the active closes its gate and says so, which is a proof. Asked again each second."""
        self.evidence.asked_reason = verdict.reason
        if now - self._asked_at < RECONCILE_SECONDS:
            return
        self._asked_at = now
        self._say(now, "ask", f"{verdict.reason}: {record.active} is asked to hand over to {target}", verdict.evidence)
        request = Handover(self.group.name, record.stamp, target, verdict.reason, self.decider)
        self._actions.append(Publish(request, flush=True))

    def _move(self, record: GroupRecord, target: str, run: str, verdict: Verdict, now: float) -> None:
        self._counter += 1
        stored = self.gate.stored.epoch if self.gate.stored else 0
        epoch = 1 + max(record.stamp.epoch, stored, self._highest_epoch)
        changed = replace(
            record,
            stamp=Stamp(epoch, f"{self.decider}.{self._counter}"),
            prev_id=str(record.stamp),
            active=target,
            previous=record.active,
            in_sync=False,
            active_run=run,
            standby_run="",
            reason=verdict.reason,
            evidence=verdict.evidence,
        )
        self._report = _Report(changed, now + REPORT_WAIT_SECONDS, {**self._down_marks(record, now), "verdict": now})
        self._send_commit(changed, now)
        self._say(now, "commit", f"{verdict.reason}: {record.active} -> {target}", verdict.evidence)

    def _down_marks(self, record: GroupRecord, now: float) -> dict[str, float]:
        """Since when a quorum has seen the path down and the bus silent."""
        needed = quorum(len(record.voters))
        marks = {}
        ballots = [self.evidence.ballots[voter] for voter in self.evidence.down(record, now)]
        seen = [
            (ballot.received_at - o.path_seconds, ballot.received_at - o.bus_seconds)
            for ballot in ballots
            for o in ballot.heartbeat.observations
            if o.subject == record.active
        ]
        if len(seen) >= needed:
            marks["path_down"] = sorted(path for path, _ in seen)[needed - 1]
            marks["bus_silent"] = sorted(bus for _, bus in seen)[needed - 1]
        return marks

    def _keep_house(self, record: GroupRecord, now: float) -> None:
        """Changes of the record that move nobody: a re-arm after a needless self-fence, and whether the standby is
        in sync."""
        if self._rearm_fenced(record, now):
            return
        should = self.evidence.protection(record, now)
        if should is None or should == (record.in_sync, record.active_run, record.standby_run):
            self._protection = None
            return
        if self._protection is None or self._protection[0] != should:
            self._protection = (should, now)
        in_sync, active_run, standby_run = should
        due = self._protection[1] + (0.0 if in_sync else PROTECTION_HOLD_SECONDS)
        if now < due:
            self._house_at = due
            return
        evidence = ("standby is in sync",) if in_sync else (f"{record.active} has no standby in sync",)
        changed = replace(record, in_sync=in_sync, active_run=active_run, standby_run=standby_run)
        self._rearm(replace(changed, reason=Reason.PROTECTION, evidence=evidence), now)

    def _rearm_fenced(self, record: GroupRecord, now: float) -> bool:
        statuses = self.evidence.statuses(record.active, now)
        if not any(status.self_fenced for status in statuses.values()):
            return False
        evidence = (f"{record.active} closed itself under {record.stamp} and is in touch again",)
        self._rearm(replace(record, reason=Reason.REARM, evidence=evidence), now)
        return True

    def _rearm(self, changed: GroupRecord, now: float) -> None:
        changed = replace(changed, prev_id=str(changed.stamp), stamp=changed.stamp.rearmed())
        self._send_commit(changed, now)
        self._say(now, "commit", str(changed.reason), changed.evidence)

    def _fenced(self, record: GroupRecord, now: float) -> None:
        """OVSDB holds a higher stamp than the record in force. Twice confirmed by a read, the store has forgotten."""
        self._say(now, "refuse", f"fenced: {self.gate.site} holds {self.gate.stored}, above {record.stamp}")
        if self._below_mark < 2:
            self._read(now)
            return
        self._raise(record, now)

    def _raise(self, record: GroupRecord, now: float) -> None:
        """Above every mark, with the active that the clients' traffic goes to: nothing moves."""
        if self._commit is not None:
            return
        self._counter += 1
        stored = self.gate.stored.epoch if self.gate.stored else 0
        active = next((self.gate.ends[name].remote_site for name in sorted(self.gate.present)), record.active)
        changed = replace(
            record,
            stamp=Stamp(1 + max(record.stamp.epoch, stored, self._highest_epoch), f"{self.decider}.{self._counter}"),
            prev_id=str(record.stamp),
            active=active,
            previous=record.active,
            in_sync=False,
            standby_run="",
            reason=Reason.RECOVERY,
            evidence=(f"record {record.stamp} below a mark; traffic goes to {active}",),
        )
        self._send_commit(changed, now)

    # ------------------------------------------------------------------ act

    def _send_commit(self, record: GroupRecord, now: float) -> None:
        assert self.revision is not None
        signed = replace(record, decided_by=self.decider, decided_at=now + self._unix)
        self._commit = _Commit(signed, now + 2 * COMMIT_DEADLINE_SECONDS, now)
        self._actions.append(CommitRecord(signed, self.revision, COMMIT_DEADLINE_SECONDS))

    def _committed(self, record: GroupRecord, revision: int, now: float, pending: _Commit | None = None) -> None:
        pending = pending or self._commit
        self._commit = None
        moved = self.record is not None and record.active != self.record.active
        if self._report is not None and self._report.record.stamp == record.stamp:
            self._report.marks["committed"] = now
        if moved:
            self._moved_at = now
        # The standby hears first, then this gateway switches; the leader's place can wait.
        self._actions.append(Publish(Epoch(record), flush=True))
        self._enforce(record, revision, now)
        self._apply(record, now)
        self._actions.append(PinLeader((record.active,)))

    def _enforce(self, record: GroupRecord, revision: int | None, now: float) -> None:
        """From now on this record is in force here."""
        self.record, self.revision = record, revision
        self._below_mark = 0
        self._highest_epoch = max(self._highest_epoch, record.stamp.epoch)
        self._protection = None
        self.evidence.void()
        self.gate.want(record.stamp, record.active)

    def _apply(self, record: GroupRecord, now: float) -> None:
        self.gate.want(record.stamp, record.active)
        action = self.gate.step(now)
        if action is not None:
            self._actions.append(action)
        if self.gate.settled(record.stamp) and self._told != record.stamp:
            self._tell_applied(record, 0.0)

    def _switched(self, event: events.SwitchApplied) -> None:
        self.gate.switched(event)
        report = self._report
        if report is not None and report.record.stamp == event.stamp:
            report.marks.setdefault("switched", event.committed_at)
            report.marks.setdefault("applied", event.applied_at)
        if self.record is not None and self.gate.settled(self.record.stamp):
            self._tell_applied(self.record, event.applied_at - event.submitted_at)

    def _tell_applied(self, record: GroupRecord, seconds: float) -> None:
        self._told = record.stamp
        present = tuple(sorted(self.gate.present))
        self._actions.append(Publish(Applied(self.gate.site, self.group.name, record.stamp, present, seconds)))

    def _mark_promoted(self, event: Serving, now: float) -> None:
        if self._report is not None and self._report.record.stamp == event.stamp:
            self._report.marks.setdefault("promoted", now)

    def _finish_report(self, now: float) -> None:
        report = self._report
        if report is None or "committed" not in report.marks:
            return
        if not {"applied", "promoted"} <= report.marks.keys() and now < report.publish_at:
            return
        self._report = None
        record = report.record
        marks = {name: at + self._unix for name, at in report.marks.items()}
        self._actions.append(
            Publish(Failover(record.group, record.stamp.epoch, record.reason, record.active, record.previous, marks))
        )

    # ------------------------------------------------------------------ time

    def _reconcile(self, now: float) -> None:
        """Algorithm 1 says "repeat": events make it fast, this makes it right."""
        self._reconcile_at = now + RECONCILE_SECONDS
        self._read(now)
        if self.record is None:
            return
        if self.gate.seen and self.gate.fenced:
            self._below_mark += 1
        self._actions.append(PinLeader((self.record.active,)))
        if self.gate.settled(self.record.stamp):
            self._tell_applied(self.record, 0.0)

    def _read(self, now: float) -> None:
        if now - self._read_sent_at < READ_DEADLINE_SECONDS:
            return
        self._read_sent_at = now
        self._actions.append(ReadRecord(self.group.name, READ_DEADLINE_SECONDS))

    def deadline(self) -> float:
        times = [self._reconcile_at]
        if self._commit is not None:
            times.append(self._commit.abandon_at)
        gate = self.gate.deadline()
        if gate is not None:
            times.append(gate)
        if self._house_at is not None:
            times.append(self._house_at)
        return min(times)

    def _say(self, now: float, action: str, reason: str, evidence: tuple[str, ...] = ()) -> None:
        """Publish a decision or refusal. While the same one holds it is said once; when it comes back, again."""
        said_at = self._said.pop((action, reason), float("-inf"))
        self._said = {key: at for key, at in self._said.items() if now - at <= SAID_SECONDS}
        self._said[action, reason] = now
        if now - said_at <= SAID_SECONDS:
            return
        stamp = self.record.stamp if self.record else Stamp(0, "none")
        self._actions.append(Publish(Decision(self.gate.site, self.group.name, stamp, action, reason, evidence)))

    def take_actions(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions
