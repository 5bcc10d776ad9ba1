"""What the agents said of a failover: the verdict, the marks of its phases, the epoch, their own downtime
figure.

Pure, and forgiving: it reads recorded bus events, and what is missing there is None here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunnelswitch.core.detector import GRACE_SECONDS_MIN
from tunnelswitch_lab.measure.events import BusEvent

AGENT_MARKS = ("path_down", "bus_silent", "verdict", "committed", "switched", "applied", "promoted")
NO_VERDICT = "none"
_BEGINS_SECONDS = 0.05  # the gap of a fault begins with the last answer before it, or while the active still dies
_PLANNED_BEGINS_SECONDS = 0.5  # a planned move waits for a checkpoint first
_CALM_SECONDS = 2.0  # what happened earlier belongs to the start of the programs
MOVES = ("proof", "suspicion", "cut_off", "operator", "promote_failed")


@dataclass(frozen=True, slots=True)
class Story:
    """What the bus tells of one run. Marks are seconds since 1970.

    The downtime is the agents' own figure: of the call if they reported its gap (`downtime_of_call`), else
    of another flow of the service, which is finer and shows shorter gaps.
    """

    verdict: str = NO_VERDICT
    epoch: int | None = None
    active_site: str | None = None
    marks: dict[str, float] = field(default_factory=dict)
    downtime_seconds: float | None = None
    downtime_of_call: bool = False
    lateness_max_seconds: float | None = None


def tell(events: Sequence[BusEvent], fault_at: float, active_before: str, service_port: int) -> Story:
    """Read the story of the fault at `fault_at`; the downtime is that of the flow from `service_port`."""
    after = [event for event in events if event.received_at >= fault_at]
    # A repeated epoch of before the fault is no consequence of it.
    moves = [
        record
        for record in map(record_of, after)
        if record.get("active") not in (None, active_before) and record.get("reason") in MOVES
    ]
    reports = [e.data for e in after if e.kind == "failover" and e.data.get("active") != active_before]
    epoch, active = _last_record(events)
    reason = moves[0]["reason"] if moves else (reports[0].get("reason") if reports else None)
    begins_seconds = _PLANNED_BEGINS_SECONDS if reason == "operator" else _BEGINS_SECONDS
    downtime = _downtime(after, fault_at, service_port, begins_seconds)
    return Story(
        verdict=str(reason).replace("_", "-") if reason else NO_VERDICT,
        epoch=epoch,
        active_site=active,
        marks=_marks(reports, fault_at),
        downtime_seconds=downtime[0] if downtime else None,
        downtime_of_call=bool(downtime and downtime[1]),
        lateness_max_seconds=_lateness([e for e in events if e.received_at > fault_at - _CALM_SECONDS]),
    )


def protected(events: Iterable[BusEvent]) -> bool:
    """Whether the latest heartbeats say that an active and a standby that is in sync exist."""
    latest: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        services = event.data.get("services") if event.kind == "heartbeat" else None
        if isinstance(services, list):
            latest[str(event.data.get("site"))] = [s for s in services if isinstance(s, dict)]
    roles = {
        str(service.get("role"))
        for services in latest.values()
        for service in services
        if service.get("in_sync") is True
    }
    return {"active", "standby"} <= roles


def connected(
    events: Iterable[BusEvent], sites: Sequence[str], for_seconds: float = 0.0, again_for_seconds: float = 0.0
) -> bool:
    """Whether the latest heartbeats say that every one of these sites sees the path to every other one up, and has for
    so long; for `again_for_seconds` where the path came up again after the site had begun to look."""
    seen: dict[str, set[str]] = {}
    for event in events:
        observations = event.data.get("observations") if event.kind == "heartbeat" else None
        if isinstance(observations, list):
            looks_for = float(event.data.get("sequence") or 0) * float(event.data.get("interval_seconds") or 0)
            ups = [o for o in observations if isinstance(o, dict) and o.get("path") == "up"]
            up = set()
            for observation in ups:
                lasted = float(observation.get("path_seconds") or 0.0)
                again = looks_for - lasted > GRACE_SECONDS_MIN
                if lasted >= (max(for_seconds, again_for_seconds) if again else for_seconds):
                    up.add(str(observation.get("subject")))
            seen[str(event.data.get("site"))] = up
    return all(set(sites) - {site} <= seen.get(site, set()) for site in sites)


def moved_before(events: Iterable[BusEvent], moment: float, active: str) -> str | None:
    """Why the group moved away from `active` before `moment`, or None when it did not."""
    for event in events:
        record = record_of(event)
        if event.received_at < moment and record.get("active") not in (None, active):
            evidence = record.get("evidence")
            words = "; ".join(map(str, evidence)) if isinstance(evidence, list) else ""
            return f"{record.get('reason')}: {words}"
    return None


def stamp_epoch(stamp: object) -> int | None:
    """The epoch of a stamp in either of its forms: an object, or the text EPOCH.MINOR-DECISION."""
    if isinstance(stamp, dict):
        epoch = stamp.get("epoch")
        return epoch if isinstance(epoch, int) else None
    digits = str(stamp).partition(".")[0]
    return int(digits) if digits.isdecimal() else None


def record_of(event: BusEvent) -> dict[str, Any]:
    """The record in an agent's word of an epoch, or in the store's own republication of it."""
    if event.kind == "record":
        return event.data
    record = event.data.get("record") if event.kind == "epoch" else None
    return record if isinstance(record, dict) else {}


def _last_record(events: Sequence[BusEvent]) -> tuple[int | None, str | None]:
    best: tuple[int, str | None] | None = None
    for event in events:
        record = record_of(event)
        if event.kind == "heartbeat":
            marks = event.data.get("marks")
            stamps = marks.values() if isinstance(marks, dict) else ()
            candidates = [(stamp_epoch(stamp), None) for stamp in stamps]
        else:
            candidates = [(stamp_epoch(record.get("stamp")), record.get("active"))]
        for epoch, active in candidates:
            if epoch is not None and (best is None or (epoch, active is not None) >= (best[0], bool(best[1]))):
                best = (epoch, active)
    return best or (None, None)


def _marks(reports: Sequence[dict[str, Any]], fault_at: float) -> dict[str, float]:
    """The marks of the first failover reported; later reports of the same epoch complete it."""
    found: dict[str, float] = {}
    for report in reports:
        if report.get("epoch") != reports[0].get("epoch"):
            break
        marks = report.get("marks")
        for name, moment in marks.items() if isinstance(marks, dict) else ():
            # A path that was down before the fault is another story.
            if name in AGENT_MARKS and isinstance(moment, int | float) and moment > fault_at - 1:
                found.setdefault(name, float(moment))
    return found


def _downtime(
    after: Sequence[BusEvent], fault_at: float, port: int, begins_seconds: float
) -> tuple[float, bool] | None:
    """The longest gap told of the flow from `port`, or of any other flow when it was too short for that one.

    Gaps that began long after the fault, as a busy machine has them, count only where there is no other.
    (Seconds, whether it is the flow from `port`.)
    """
    figures = [
        (
            float(event.data.get("gap_started_at") or fault_at) <= fault_at + begins_seconds,
            f":{port} >" in str(event.data.get("flow", "")),
            float(event.data["downtime_seconds"]),
        )
        for event in after
        if event.kind == "traffic"
        and isinstance(event.data.get("downtime_seconds"), int | float)
        and _ends_after(event.data, fault_at)
    ]
    if not figures:
        return None
    _, same_flow, seconds = max(figures)
    return seconds, same_flow


def _ends_after(data: dict[str, Any], fault_at: float) -> bool:
    ended = data.get("gap_ended_at")
    return not isinstance(ended, int | float) or ended > fault_at


def _lateness(events: Sequence[BusEvent]) -> float | None:
    return max(
        (
            float(event.data["lateness_seconds"])
            for event in events
            if event.kind == "heartbeat" and isinstance(event.data.get("lateness_seconds"), int | float)
        ),
        default=None,
    )
