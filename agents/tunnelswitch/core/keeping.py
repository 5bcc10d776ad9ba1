"""A group's record as one decider holds it: what is in force, what is being committed, when to read (PROTOCOL R1).

In force is the highest stamp that came from an acknowledged commit, a leader-confirmed read or another switcher's word.
A commit whose answer never came is ambiguous: a read tells, by its stamp, whether it landed. Never more than one commit
and one read are under way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from tunnelswitch.core.actions import CommitRecord, ReadRecord
from tunnelswitch.core.events import RecordRead
from tunnelswitch.core.facts import GroupRecord

# A leader that steps down can swallow a commit: better to ask again soon than to wait long.
COMMIT_DEADLINE_SECONDS = 0.3
READ_DEADLINE_SECONDS = 0.5


class News(Enum):
    """What a read came to."""

    NOTHING = "nothing new"
    IN_FORCE = "a higher stamp is in force"
    COMMITTED = "our own commit had landed"
    MISSING = "the store has no record"
    WENT_BACK = "the store holds a lower stamp than the one in force"


@dataclass(slots=True)
class _Pending:
    record: GroupRecord
    abandon_at: float
    unknown: bool = False


class RecordKeeper:
    """One group's record, its revision, and the commit and the read under way."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.record: GroupRecord | None = None
        self.revision: int | None = None
        self.missing = False
        self._in_force_at = float("-inf")
        self._pending: _Pending | None = None
        self._read_sent_at: float | None = None
        self._read_wanted = False

    @property
    def can_commit(self) -> bool:
        return self._pending is None and self.revision is not None and not self.missing

    def enforce(self, record: GroupRecord, revision: int | None, now: float) -> None:
        """From now on `record` is in force; without its revision it must be read before anything can be committed."""
        self.record, self.revision = record, revision
        self._in_force_at = now
        self.missing = False
        ours = self._pending is not None and self._pending.record.stamp == record.stamp
        if revision is None and not ours:  # the answer to our own commit brings the revision
            self._read_wanted = True

    def commit(self, record: GroupRecord, now: float) -> CommitRecord:
        assert self.revision is not None
        self._pending = _Pending(record, now + 2 * COMMIT_DEADLINE_SECONDS)
        return CommitRecord(record, self.revision, COMMIT_DEADLINE_SECONDS)

    def acknowledged(self) -> None:
        self._pending = None

    def refused(self) -> None:
        """Another revision is there: read before anything else is tried."""
        self._pending, self.revision = None, None
        self._read_wanted = True

    def unknown(self) -> None:
        """No answer to the commit."""
        if self._pending is not None:
            self._pending.unknown = True
            self._read_wanted = True

    def read_failed(self, now: float) -> None:
        self._read_sent_at = now

    def have_read(self, answer: RecordRead, now: float) -> News:
        """Take the answer of a read."""
        sent_at = now if self._read_sent_at is None else self._read_sent_at
        self._read_sent_at = None
        if answer.record is None:
            self.missing = True
            return News.MISSING
        self.missing = False
        pending, known = self._pending, self.record
        if pending is not None and pending.unknown:
            self._pending = None
            if answer.record.stamp == pending.record.stamp and (known is None or known.stamp <= pending.record.stamp):
                return News.COMMITTED
        if known is None or answer.record.stamp > known.stamp:
            self.enforce(answer.record, answer.revision, now)
            return News.IN_FORCE
        if answer.record.stamp == known.stamp:
            self.revision = answer.revision
            return News.NOTHING
        if sent_at <= self._in_force_at:
            # Sent before the record came into force, answered after: it shows the past.
            self._read_wanted = True
            return News.NOTHING
        self.revision = answer.revision
        return News.WENT_BACK

    def want_read(self) -> None:
        self._read_wanted = True

    def step(self, now: float) -> ReadRecord | None:
        """The read that is due, if any."""
        pending = self._pending
        if pending is not None and now >= pending.abandon_at:
            pending.unknown = True
            pending.abandon_at = now + COMMIT_DEADLINE_SECONDS
            self._read_wanted = True
        if not self._read_wanted or now < self._read_free_at:
            return None
        self._read_wanted = False
        self._read_sent_at = now
        return ReadRecord(self.group, READ_DEADLINE_SECONDS)

    @property
    def _read_free_at(self) -> float:
        return float("-inf") if self._read_sent_at is None else self._read_sent_at + READ_DEADLINE_SECONDS

    def deadline(self) -> float | None:
        if self._pending is None and not self._read_wanted:
            return None
        times = [self._pending.abandon_at] if self._pending is not None else []
        if self._read_wanted:
            times.append(self._read_free_at)
        return min((time for time in times if time != float("-inf")), default=None)


def signed(record: GroupRecord, decider: str, decided_at: float) -> GroupRecord:
    return replace(record, decided_by=decider, decided_at=decided_at)
