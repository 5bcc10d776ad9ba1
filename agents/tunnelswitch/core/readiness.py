"""Could the standby take over (PROTOCOL R6), and what should the record say of it?"""

from __future__ import annotations

from tunnelswitch.core.evidence import Evidence, Verdict
from tunnelswitch.core.facts import GroupRecord, Path, Protection, Reason
from tunnelswitch.core.runs import names_run


def promotable(evidence: Evidence, record: GroupRecord, target: str, verdict: Verdict, now: float) -> tuple[str, ...]:
    """What is missing for `target` to take over; empty if nothing is."""
    missing = []
    if not record.in_sync:
        why = "; ".join(status.why for status in evidence.statuses(record.active, now).values() if status.why)
        missing.append(f"record says that the standby is not in sync in this epoch{f' ({why})' if why else ''}")
    if evidence.fresh(target, now) is None:
        missing.append(f"no fresh heartbeat from {target}")
        return tuple(missing)
    # A live active is not left for a path that is not up. A dead one is: BFD takes up to a second to come back from
    # a false alarm, and the heartbeat that just came took the same underlay.
    if verdict.consent_needed and evidence.path_to(target, now) is not Path.UP:
        missing.append(f"path from {evidence.gateway} to {target} is not up")
    if verdict.reason is Reason.CUT_OFF and _waits(evidence, record, now):
        missing.append(f"{record.active} waits to be exposed, and {target} would have to wait as well")
    for service in evidence.group.services:
        status = evidence.statuses(target, now).get(service.name)
        if status is None:
            missing.append(f"{target} has not said how {service.name} is")
        elif not status.run:
            missing.append(f"{target} hosts no instance of {service.name}")
        elif record.in_sync and not names_run(record.standby_run, service.name, status.run):
            missing.append(f"{service.name} on {target} is another run than the one in sync")
        elif not status.in_sync and not (status.role == "active" and _handed_over(evidence, service.name)):
            missing.append(f"{service.name} on {target} is not in sync{f' ({status.why})' if status.why else ''}")
    return tuple(missing)


def _handed_over(evidence: Evidence, service: str) -> bool:
    """Has the active closed for good with the standby holding all that clients saw? Then that may have resumed."""
    proof = evidence.proofs.get(service)
    return proof is not None and proof.final_checkpoint > 0


def _waits(evidence: Evidence, record: GroupRecord, now: float) -> bool:
    """Has the active taken over, and is held back only until it is known that the old one reaches nobody?"""
    statuses = evidence.statuses(record.active, now).values()
    ready = len(statuses) == len(evidence.group.services) and all(status.role == "active" for status in statuses)
    return ready and not any(status.gate_open or status.self_fenced for status in statuses)


def protection(evidence: Evidence, record: GroupRecord, now: float) -> tuple[bool, str, str] | None:
    """What the record should say: (in_sync, active_run, standby_run), or None if that cannot be told now."""
    active = evidence.statuses(record.active, now)
    names = [service.name for service in evidence.group.services]
    if any(name not in active for name in names):
        return None
    if any(active[name].protection is Protection.STOPPED or active[name].role != "active" for name in names):
        return None
    target = evidence.group.other(record.active)
    standby = evidence.statuses(target, now)
    active_run = evidence.runs(record.active, now)
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
    return (in_sync, active_run, evidence.runs(target, now) if in_sync else "")
