"""A brake on moving to and fro between two copies of which neither answers (PROTOCOL R5).

A copy that hangs or has panicked is checkpointed as it is: its standby is no better. So clients without an answer are a
reason to try the other copy once. If that answers them no more than the first did, going back helps nobody, and costs
an epoch, the evidence and a resynchronisation each time.

The brake is about the clients of one gateway; those of another, whom the same move served worse, may ask for their own.
It rests on one agent's unbroken watch of their packets and on this process' memory: where either began after the move,
nobody can tell, and one more move is allowed rather than one too few.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tunnelswitch.core.facts import GroupRecord
from tunnelswitch.core.quorum import Ballot


@dataclass(slots=True)
class Brake:
    """Of one group at one gateway.

    Attributes:
        answers_seconds: a service that has answered for so long answers.
        patience_seconds: clients who wait for less are no sign that it does not.
    """

    answers_seconds: float
    patience_seconds: float
    _tried: dict[str, float | None] = field(default_factory=dict)  # service: since when it answers
    _run: str = ""
    _watcher: str = ""

    @property
    def on(self) -> bool:
        """Has the group been moved for clients who, as far as is known, still get no answer?"""
        return bool(self._tried)

    def holds(self, service: str) -> bool:
        """Is another move for this service's clients in vain?"""
        return service in self._tried

    def moved(self, record: GroupRecord, unanswered: Iterable[str], watcher: str) -> None:
        """The active was cut off, and another site took over. `unanswered`: the services for whose clients here;
        `watcher`: the start of the gateway's agent, which sees whether they are answered now."""
        self._tried = dict.fromkeys((*self._tried, *unanswered))
        self._run, self._watcher = record.active_run, watcher

    def release(self) -> None:
        """Nothing is known that speaks against a move."""
        self._tried.clear()

    def follow(self, record: GroupRecord) -> None:
        """Another record is in force. A service that was started anew is not the one that did not answer."""
        if record.active_run != self._run:
            self.release()

    def hear(self, ballot: Ballot) -> None:
        """What the gateway's agent says of its clients now."""
        if not self._tried:  # nearly always
            return
        if ballot.heartbeat.incarnation != self._watcher:
            self.release()
            return
        now = ballot.received_at
        for service, since in tuple(self._tried.items()):
            if ballot.is_answered(service):
                if now - (since := now if since is None else since) >= self.answers_seconds:
                    del self._tried[service]
                else:
                    self._tried[service] = since
            elif not 0.0 < ballot.unanswered_seconds(service) < self.patience_seconds:
                self._tried[service] = None
