"""What every site does: hear the others, remember the highest stamps, and speak once an interval.

A heartbeat carries the site's observations, its votes on the groups it is a voter of, its marks, and an echo of what it
heard. It leaves at once when an observation changes, so that no verdict waits for the next beat.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tunnelswitch.core.actions import Action, Publish, ReadRecord
from tunnelswitch.core.detector import Detector
from tunnelswitch.core.events import DataPlaneSeen, LoopLate, PathChanged, RecordRead
from tunnelswitch.core.facts import ClientsObservation, Epoch, GroupRecord, Heartbeat, ServiceStatus, Vote
from tunnelswitch.core.freshness import Freshness
from tunnelswitch.core.patience import Limits
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import Group

POLL_SECONDS = 1.0
READ_DEADLINE_SECONDS = 0.5
SENT_MAX = 4096


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast failure is seen.

    `window_seconds` is interval x multiplier, not less than the floor: after so long a site is silent where nothing
    else was measured. A switcher believes a word (a vote, a status) for as long as ever, however far windows for
    silence have widened: they make conclusions later, never older.
    """

    interval_seconds: float
    window_seconds: float
    fence_after_seconds: float
    unanswered_seconds: float
    ceiling_seconds: float | None = None
    false_silences_per_day: float = 1.0

    @property
    def age_max_seconds(self) -> float:
        """A heartbeat delayed by more than a window says nothing about now."""
        return self.window_seconds

    @property
    def longest_window_seconds(self) -> float:
        """What any site's window may have widened to; by default the time after which an active closes itself."""
        return self.fence_after_seconds if self.ceiling_seconds is None else self.ceiling_seconds

    @property
    def limits(self) -> Limits:
        """For the detector."""
        longest = max(self.window_seconds, self.longest_window_seconds)
        return Limits(self.interval_seconds, self.window_seconds, longest, self.false_silences_per_day)


class Member:
    """One site's part in hearing and being heard.

    Args:
        groups: the groups in which this site is a server, a gateway or a voter.
        others: all other sites of the deployment.
        incarnation: unique per start of this process.
    """

    def __init__(
        self,
        site: str,
        incarnation: str,
        groups: tuple[Group, ...],
        others: tuple[str, ...],
        timing: Timing,
        now: float,
    ) -> None:
        self.site = site
        self.incarnation = incarnation
        self.started_at = now
        self.groups = {group.name: group for group in groups}
        self.timing = timing
        self.detector = Detector(others, limits=timing.limits, now=now)
        self.records: dict[str, GroupRecord] = {}
        self.stale_messages = 0
        self.services: Callable[[float], tuple[ServiceStatus, ...]] = lambda now: ()
        self.clients: Callable[[float], tuple[ClientsObservation, ...]] = lambda now: ()
        self.marks: Callable[[], dict[str, Stamp]] = dict
        self._freshness = Freshness(timing.age_max_seconds)
        self._heard: dict[str, tuple[str, int]] = {}
        self._record_since: dict[str, float] = {}
        self._echoed_at: dict[str, float] = {}
        self._sent: deque[tuple[int, float]] = deque(maxlen=SENT_MAX)
        self._sequence = 0
        self._beat_at = now
        self._poll_at = now
        self._urgent = False

    # ------------------------------------------------------------------ in

    def receive(self, event: object, now: float) -> Heartbeat | None:
        """Take what concerns every site. Returns a heartbeat if `event` is one that counts."""
        match event:
            case Heartbeat():
                return self._hear(event, now)
            case PathChanged():
                self._urgent |= self.detector.path(event.site, event.path, now)
            case DataPlaneSeen():
                # A mark may have risen, and with several gateways somebody may be waiting for it.
                self._urgent |= any(len(record.gateways) > 1 for record in self.records.values())
            case LoopLate():
                self.detector.late(event.lateness_seconds, now)
            case Epoch() if event.record.group in self.records:
                # Not the first word of all: it may be an old one. That takes a leader-confirmed read.
                self.learn(event.record, now)
            case RecordRead() if event.record is not None:
                self.learn(event.record, now)
        return None

    def _hear(self, beat: Heartbeat, now: float) -> Heartbeat | None:
        if beat.site not in self.detector:
            return None
        window = self.detector.window_seconds(beat.site)
        stale = self._freshness.check(
            beat.site, beat.incarnation, beat.sequence, beat.sent_at_monotonic, now, age_max_seconds=window
        )
        if stale is not None:
            self.stale_messages += 1
            return None
        known, sequence = self._heard.get(beat.site, ("", 0))
        missed = beat.sequence - sequence - 1 if known == beat.incarnation else None
        self._heard[beat.site] = (beat.incarnation, beat.sequence)
        self._urgent |= self.detector.heard(beat.site, now, missed=missed)
        incarnation, sequence = beat.heard.get(self.site, ("", 0))
        if incarnation == self.incarnation:
            sent_at = self._sent_at(sequence)
            if sent_at is not None:
                self._echoed_at[beat.site] = max(sent_at, self._echoed_at.get(beat.site, sent_at))
        return beat

    def _sent_at(self, sequence: int) -> float | None:
        if not self._sent:
            return None
        index = sequence - self._sent[0][0]
        return self._sent[index][1] if 0 <= index < len(self._sent) else None

    def learn(self, record: GroupRecord, now: float) -> bool:
        """Remember a record if its stamp is higher than the one known. A new stamp voids the evidence of the old."""
        known = self.records.get(record.group)
        if record.group not in self.groups or (known is not None and record.stamp <= known.stamp):
            return False
        self.records[record.group] = record
        self._record_since[record.group] = now
        return True

    # ------------------------------------------------------------------ time

    def deadline(self) -> float:
        return min(self._beat_at, self._poll_at, self.detector.deadline(), self._ripe_at())

    def _ripe_at(self) -> float:
        """When the first vote that waits only for the stamp's age becomes one; infinity if none does."""
        first = float("inf")
        if not self.detector.silent:  # asked at every event, and nearly always so
            return first
        for name, record in self.records.items():
            since = self.detector.down_since(record.active)
            if since is not None:
                ripe = self._record_since[name] + self.detector.allowed_seconds(record.active)
                last_beat = self._sent[-1][1] if self._sent else float("-inf")
                if max(since, last_beat) < ripe < first:
                    first = ripe
        return first

    def expire(self, now: float) -> None:
        self._urgent |= self.detector.expire(now)
        if self._ripe_at() <= now:
            self._urgent = True

    def take_actions(self, now: float) -> list[Action]:
        """The heartbeat if it is due or something changed, and the poll of the records (events make it fast, the
        poll makes it right)."""
        actions: list[Action] = []
        if self._urgent or now >= self._beat_at:
            actions.append(Publish(self._heartbeat(now)))
        if now >= self._poll_at:
            self._poll_at = self._poll_not_before(now)
            if now >= self._poll_at:
                self._poll_at = now + POLL_SECONDS
                actions.extend(ReadRecord(name, READ_DEADLINE_SECONDS) for name in self.groups)
        return actions

    def _poll_not_before(self, now: float) -> float:
        """When an active has just gone a commit follows, and a read would be in its way for a round trip."""
        gone = (self.detector.down_since(record.active) for record in self.records.values())
        return max((since + POLL_SECONDS for since in gone if since is not None), default=now)

    def _heartbeat(self, now: float) -> Heartbeat:
        interval = self.timing.interval_seconds
        if now >= self._beat_at:
            # Keep the cadence unless a whole interval was missed; a beat out of turn leaves it alone.
            self._beat_at = max(self._beat_at, now - interval) + interval
            self._beat_at = self._beat_at if self._beat_at > now else now + interval
        self._urgent = False
        self._sequence += 1
        self._sent.append((self._sequence, now))
        return Heartbeat(
            site=self.site,
            incarnation=self.incarnation,
            sequence=self._sequence,
            sent_at_monotonic=now,
            interval_seconds=interval,
            late=self.detector.abstains(now),
            lateness_seconds=self.detector.lateness_seconds,
            marks=self.marks(),
            heard=dict(self._heard),
            observations=self.detector.observations(now),
            votes=self.votes(now),
            services=self.services(now),
            clients=self.clients(now),
        )

    # ------------------------------------------------------------------ what it makes of it

    def votes(self, now: float) -> tuple[Vote, ...]:
        """This site's word on each group's active site. Down only if path and bus have both been gone while this very
        stamp was known, for at least a window since it was learnt."""
        votes = []
        for name, record in self.records.items():
            if record.active == self.site or self.site not in record.voters:
                continue
            learnt = self._record_since[name]
            since = self.detector.down_since(record.active)
            down = since is not None and now >= learnt + self.detector.allowed_seconds(record.active)
            seconds = now - max(since, learnt) if since is not None else 0.0
            votes.append(Vote(name, record.active, record.stamp, down, seconds if down else 0.0))
        return tuple(votes)

    def in_touch_at(self, voter: str, now: float) -> float:
        """When `voter` was in touch with us last: its path was up, or a heartbeat of ours left that it echoed since.
        Hearing somebody who cannot hear us is not being in touch (PROTOCOL R4). Minus infinity: not since our start."""
        return max(self.detector.up_until(voter, now), self._echoed_at.get(voter, float("-inf")))
