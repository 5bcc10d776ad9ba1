"""What operators ask of one group's switcher: move, plan, drain, pause; and the active's word that it cannot follow.

A request names the stamp it was made under and is void under any other. What is granted becomes evidence or a change of
the record; what is not is refused at once, with the reason. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable

from tunnelswitch.core import readiness
from tunnelswitch.core.evidence import Evidence, Verdict
from tunnelswitch.core.facts import (
    DrainRequest,
    GroupRecord,
    HandoverRefused,
    MoveRequest,
    PauseRequest,
    PlanRequest,
    Reason,
)
from tunnelswitch.core.housekeeping import against_drain, drained_after, paused_text

Request = MoveRequest | PlanRequest | DrainRequest | PauseRequest
Say = Callable[[float, str, str], None]
Against = Callable[[GroupRecord, Verdict, float], list[str]]


class Wishes:
    """Of one group.

    Args:
        say: publishes (now, action, reason), unless it is being said already.
        against: what policy has against a verdict.
    """

    def __init__(self, evidence: Evidence, say: Say, against: Against) -> None:
        self._evidence = evidence
        self._say = say
        self._against = against

    def hear(self, request: Request, record: GroupRecord | None, now: float) -> None:
        """Grant or refuse it."""
        if record is None or request.stamp != record.stamp:
            self._say(now, "refuse", f"{request.asked_by} asks under {request.stamp}, which is not in force")
            return
        match request:
            case MoveRequest():
                self._evidence.wish, self._evidence.wished_at = request, now
            case PlanRequest():
                self._plan(request, record, now)
            case DrainRequest():
                against = against_drain(record, self._evidence.group, request)
                if against is not None:
                    self._say(now, "refuse", f"{request.asked_by} {against}")
                elif drained_after(record, request) != record.drained:
                    self._evidence.drain = request
            case PauseRequest() if paused_text(request) == record.paused or request.paused == bool(record.paused):
                self.tell_paused(record, now)
            case PauseRequest():
                self._evidence.pause = request

    def tell_paused(self, record: GroupRecord, now: float) -> None:
        """This switcher knows what the record says of automatic moves."""
        if record.paused:
            self._say(now, "pause", f"nothing moves by itself: paused by {record.paused}")
        else:
            self._say(now, "resume", "automatic moves are allowed")

    def against(self, record: GroupRecord, target: str, verdict: Verdict, now: float) -> list[str]:
        """Everything that keeps `target` from serving."""
        missing = readiness.promotable(self._evidence, record, target, verdict, now)
        return [*verdict.against, *missing, *self._against(record, verdict, now)]

    def _plan(self, request: PlanRequest, record: GroupRecord, now: float) -> None:
        if request.target != self._evidence.group.other(record.active):
            self._say(now, "refuse", f"operator: {request.target} is no standby of {record.active}")
            return
        wish = Verdict(Reason.OPERATOR, (), consent_needed=True)
        missing = self.against(record, request.target, wish, now)
        statuses = self._evidence.statuses(record.active, now).values()
        if not statuses:
            missing.append(f"{record.active} is not heard, and could not hand over")
        if missing:
            self._say(now, "refuse", f"operator: {'; '.join(missing)}")
            return
        copies = ", ".join(
            f"{status.service} {status.state}, checkpoint {status.checkpoint_sequence} is "
            f"{status.checkpoint_age_seconds:.3f} s old"
            for status in statuses
        )
        self._say(now, "plan", f"operator: {record.active} would hand over to {request.target} ({copies})")

    def refused(self, refusal: HandoverRefused, record: GroupRecord | None, now: float) -> bool:
        """The active cannot hand over without a loss; returns whether this is news under the record in force."""
        if record is None or (refusal.stamp, refusal.site) != (record.stamp, record.active):
            return False
        self._evidence.wish = self._evidence.asked = None
        self._say(now, "refuse", f"operator: {refusal.site} does not hand over: {refusal.reason}")
        return True
