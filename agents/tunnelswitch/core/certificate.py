"""What makes it known that the old active can serve nobody (PROTOCOL R6), gathered by the site that is to take over.

With several gateways one that cannot be reached may still lead clients to the old copy, so nothing may be exposed
before every gateway has switched, or the old active is closed, or it must have closed itself by now. Time since the
decision is not enough for the last: an active that is back in touch with its voters need not fence itself.
"""

from __future__ import annotations

from tunnelswitch.core.facts import Applied, Bus, GroupRecord, Heartbeat, Observation, Path, Proof, ProofKind
from tunnelswitch.core.member import Member
from tunnelswitch.core.quorum import blocking, quorum
from tunnelswitch.core.stamp import Stamp

# X of PROTOCOL R6 (iii): rates of clocks, detection, delay and the time that a self-fence takes to execute. Detection
# counts with the ceiling: how far the windows of the other side have widened is not known here.
CLOCK_RATE_MARGIN = 1.001
EXECUTION_SECONDS = 0.5
VIEW_WINDOWS = 2


class Certificate:
    """What was heard about the gateways and the old active of one group."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._acks: dict[str, Stamp] = {}
        self._fenced: Stamp | None = None
        self._closed: Stamp | None = None
        self._views: dict[str, tuple[float, Observation]] = {}
        self._marks: dict[str, Stamp] = {}

    def hear(self, fact: Applied | Proof | Heartbeat, record: GroupRecord, now: float) -> None:
        """Take a fact that may certify `record`."""
        match fact:
            case Applied() if fact.site in record.gateways:
                self._acks[fact.site] = max(fact.stamp, self._acks.get(fact.site, fact.stamp))
            case Applied() if fact.site == record.previous:
                self._closed = None if fact.tunnels_present else fact.stamp
            case Proof() if fact.kind is ProofKind.FENCED:
                self._fenced = fact.stamp
            case Heartbeat():
                self._look(fact, record, now)
            case _:
                pass

    def _look(self, beat: Heartbeat, record: GroupRecord, now: float) -> None:
        """What another site sees of the old active, and which stamp it holds durably."""
        mark = beat.marks.get(record.group)
        if mark is not None:
            self._marks[beat.site] = mark
        if not beat.late and beat.site in record.voters:
            view = next((seen for seen in beat.observations if seen.subject == record.previous), None)
            if view is not None:
                self._views[beat.site] = (now, view)

    def is_marked(self, record: GroupRecord) -> bool:
        """Do Q voters hold this decision durably, and nobody a higher one (PROTOCOL R3)? A store that forgets it can
        then no more pass it over: every later majority meets a voter that knows. This site's own mark comes with the
        transaction that opens its gate."""
        if any(mark > record.stamp for mark in self._marks.values()):
            return False
        holders = {site for site, mark in self._marks.items() if mark == record.stamp} | {self._member.site}
        return len(holders.intersection(record.voters)) >= quorum(len(record.voters))

    def is_blocking(self, record: GroupRecord) -> bool:
        """Do K voters hold this very stamp durably, this site among them, and nobody a higher one, so that every later
        majority meets one that knows of it?"""
        if any(mark > record.stamp for known in (self._marks, self._acks) for mark in known.values()):
            return False
        holders = {site for known in (self._marks, self._acks) for site, mark in known.items() if mark == record.stamp}
        return len((holders | {self._member.site}).intersection(record.voters)) >= blocking(len(record.voters))

    def of(self, record: GroupRecord, now: float) -> str | None:
        """Why the old active can serve nobody, or None if that is not known yet."""
        if all(self._applied(gateway, record.stamp) for gateway in record.gateways):
            return "all gateways applied"
        if self._fenced is not None and record.prev_id == str(self._fenced):
            return "old active fenced"
        if record.previous == self._member.site:
            return "no other copy was active"
        decided = Stamp(record.stamp.epoch, record.stamp.decision_id)
        if self._closed is not None and decided <= self._closed:
            return "old active closed its end"
        return "fence time has passed" if self._fence_time_passed(record, now) else None

    def _applied(self, gateway: str, stamp: Stamp) -> bool:
        """Does the gateway follow this decision? Another one of the same epoch, or a higher one, may lead elsewhere."""
        acked = self._acks.get(gateway)
        if acked is None or (acked.epoch, acked.decision_id) != (stamp.epoch, stamp.decision_id):
            return False
        return acked >= stamp

    def _fence_time_passed(self, record: GroupRecord, now: float) -> bool:
        """Have Q voters been out of touch with the old active, path and bus, for longer than its fence takes?"""
        timing = self._member.timing
        wait = timing.fence_after_seconds * CLOCK_RATE_MARGIN + timing.longest_window_seconds + EXECUTION_SECONDS
        age_max = VIEW_WINDOWS * timing.window_seconds
        fresh = {voter: seen for voter, (at, seen) in self._views.items() if now - at <= age_max}
        fresh[self._member.site] = self._member.detector.observation(record.previous, now)
        apart = sum(
            seen.subject == record.previous
            and (seen.path, seen.bus) == (Path.DOWN, Bus.SILENT)
            and min(seen.path_seconds, seen.bus_seconds) >= wait
            for voter, seen in fresh.items()
            if voter in record.voters
        )
        return apart >= quorum(len(record.voters))
