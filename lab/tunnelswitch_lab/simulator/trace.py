"""One line for everything that is told of a schedule: when, who, what. Text only; it decides nothing."""

from __future__ import annotations

from tunnelswitch.core import facts
from tunnelswitch_lab.simulator.schedule import Schedule
from tunnelswitch_lab.simulator.timeline import START_SECONDS

NAME_WIDTH = 20


def line(now: float, who: str, what: object) -> str:
    """`when who what`, the time in seconds since the story's begin."""
    return f"{now - START_SECONDS:8.3f}  {who:<{NAME_WIDTH}}  {phrase(what)}"


def heading(schedule: Schedule) -> list[str]:
    """The deployment, and what is going to happen to it."""
    setup, group = schedule.setup, schedule.setup.group
    lines = [
        f"seed {schedule.seed}: servers {', '.join(group.servers)}; gateways {', '.join(group.gateways)}; "
        f"voters {', '.join(group.voters)}; services {', '.join(service.name for service in group.services)}",
        f"  heartbeat {setup.timing.interval_seconds:g} s, window {setup.timing.window_seconds:g} s, "
        f"fence after {setup.timing.fence_after_seconds:g} s, hysteresis {group.hysteresis_seconds:g} s"
        + ("" if setup.protected else ", the standby still on its way"),
    ]
    lines += [f"  {fault}" for fault in schedule.faults]
    return [*lines, f"  {schedule.healed_at:7.3f} s  everything is healed"]


def phrase(what: object) -> str:
    """A message in words; anything else as it says itself."""
    match what:
        case facts.Decision(stamp=stamp, action=action, reason=reason, evidence=evidence):
            return f"under {stamp}: {action}, {reason}" + (f" ({'; '.join(evidence)})" if evidence else "")
        case facts.Epoch(record=record):
            standby = f"standby {record.standby_run}" if record.in_sync else "no standby in sync"
            return f"announces {record.stamp}: active {record.active}, {standby}"
        case facts.Proof(service=service, kind=kind, run=run, stamp=stamp, final_checkpoint=final):
            held = f", the standby holding checkpoint {final}" if final else ""
            return f"proves that {service} run {run} is {kind} under {stamp}{held}"
        case facts.Handover(stamp=stamp, target=target, reason=reason):
            return f"asks for a hand-over to {target} under {stamp} ({reason})"
        case facts.HandoverRefused(stamp=stamp, reason=reason):
            return f"does not hand over under {stamp}: {reason}"
        case facts.PauseRequest(stamp=stamp, paused=paused, asked_by=who):
            return f"asks under {stamp} that {'nothing move by itself' if paused else 'moves go on'} ({who})"
        case facts.MoveRequest(stamp=stamp, target=target, asked_by=who):
            return f"asks under {stamp} that {target} serve ({who})"
        case facts.DrainRequest(stamp=stamp, site=site, drained=drained, asked_by=who):
            return f"asks under {stamp} that {site} {'serve nobody' if drained else 'may serve again'} ({who})"
        case facts.Applied(stamp=stamp, tunnels_present=present):
            return f"its switch follows {stamp}: {', '.join(present) or 'no tunnel'}"
        case facts.Serving(stamp=stamp):
            return f"serves under {stamp}"
        case facts.PromoteFailed(stamp=stamp, error=error):
            return f"cannot take over under {stamp}: {error}"
        case facts.Failover(epoch=epoch, previous=previous, active=active, reason=reason):
            return f"reports epoch {epoch}: {previous} -> {active} ({reason})"
        case _:
            return str(what)
