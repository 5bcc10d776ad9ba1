"""What a decision makes of a group's record: moved, re-armed, raised above what a store forgot (PROTOCOL R1, R5).

The stamp before stands in `prev_id`, so a chain of records tells its own story.
"""

from __future__ import annotations

from dataclasses import replace

from tunnelswitch.core.evidence import Verdict
from tunnelswitch.core.facts import GroupRecord, Reason
from tunnelswitch.core.stamp import Stamp


def moved(record: GroupRecord, stamp: Stamp, target: str, run: str, verdict: Verdict) -> GroupRecord:
    """`target` is active with its copy `run`, and nobody stands by yet."""
    return replace(
        record,
        stamp=stamp,
        prev_id=str(record.stamp),
        active=target,
        previous=record.active,
        in_sync=False,
        active_run=run,
        standby_run="",
        reason=verdict.reason,
        evidence=verdict.evidence,
    )


def rearmed(changed: GroupRecord) -> GroupRecord:
    """The same epoch and active with what was changed in it; all evidence under the old stamp is void."""
    return replace(changed, prev_id=str(changed.stamp), stamp=changed.stamp.rearmed())


def raised(record: GroupRecord, stamp: Stamp, active: str) -> GroupRecord:
    """Above a mark that the store does not know any more, with the active that traffic goes to."""
    return replace(
        record,
        stamp=stamp,
        prev_id=str(record.stamp),
        active=active,
        # Who may still be reached: the last move may not have got to everybody before the store forgot it.
        previous=record.previous if active == record.active else record.active,
        in_sync=False,
        standby_run="",
        reason=Reason.RECOVERY,
        evidence=(f"the store is below a mark; traffic goes to {active}",),
    )
