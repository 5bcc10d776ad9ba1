"""The marks of one move, from the first sign to the first service: what the report of a failover says."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunnelswitch.core.evidence import Evidence
from tunnelswitch.core.facts import Failover, GroupRecord
from tunnelswitch.core.quorum import quorum
from tunnelswitch.core.stamp import Stamp

REPORT_WAIT_SECONDS = 5.0


@dataclass(slots=True)
class Move:
    """A move under way. `marks` are seconds of this process' clock."""

    record: GroupRecord
    report_at: float
    marks: dict[str, float] = field(default_factory=dict)

    @classmethod
    def begin(cls, record: GroupRecord, before: GroupRecord, evidence: Evidence, now: float) -> Move:
        return cls(record, now + REPORT_WAIT_SECONDS, {**down_marks(before, evidence, now), "verdict": now})

    def mark(self, stamp: Stamp, **at: float) -> None:
        """Note the first time of each mark, if it belongs to this move."""
        if stamp == self.record.stamp:
            for name, time in at.items():
                self.marks.setdefault(name, time)

    def report(self, now: float, unix_offset_seconds: float) -> Failover | None:
        """The report, once everything is known or enough time has passed; None before."""
        if "committed" not in self.marks:
            return None
        if not {"applied", "promoted"} <= self.marks.keys() and now < self.report_at:
            return None
        record = self.record
        marks = {name: at + unix_offset_seconds for name, at in self.marks.items()}
        return Failover(record.group, record.stamp.epoch, record.reason, record.active, record.previous, marks)


def down_marks(record: GroupRecord, evidence: Evidence, now: float) -> dict[str, float]:
    """Since when a quorum has seen the path to the active down and its bus silent; empty if none does."""
    needed = quorum(len(record.voters))
    ballots = [evidence.ballots[voter] for voter in evidence.down(record, now)]
    seen = [
        (ballot.received_at - observation.path_seconds, ballot.received_at - observation.bus_seconds)
        for ballot in ballots
        for observation in ballot.heartbeat.observations
        if observation.subject == record.active
    ]
    if len(seen) < needed:
        return {}
    return {
        "path_down": sorted(path for path, _ in seen)[needed - 1],
        "bus_silent": sorted(bus for _, bus in seen)[needed - 1],
    }
