"""The epoch store: one value per group on three replicas, with a leader that can be lost, and writes that can be too.

A request is answered only while its site reaches a leader that has a majority, and never during an election. An
acknowledgement can be lost, a write can land after its caller gave up, and the store can forget acknowledged writes
(then it counts revisions from there again). Reads are confirmed: never older than the leader's last write.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from tunnelswitch.core.facts import GroupRecord
from tunnelswitch.errors import CommitRefusedError, CommitUnknownError, EpochStoreError
from tunnelswitch_lab.simulator.network import Network
from tunnelswitch_lab.simulator.process import Answer
from tunnelswitch_lab.simulator.setup import Delays
from tunnelswitch_lab.simulator.timeline import Timeline

Read = tuple[GroupRecord | None, int]


class SimulatedStore:
    """What all processes share.

    Attributes:
        up: is there any store at all?
        forgot: has it ever lost acknowledged writes?
        acks_lost: commits land, or not, and nobody hears which.
        slow_seconds: added to every request.
        shut_out: sites that get no answer, however good their links are.
        history: every value ever written, by group, with its revision; the last is in force.
    """

    def __init__(
        self, timeline: Timeline, network: Network, replicas: tuple[str, ...], delays: Delays, seed: int
    ) -> None:
        self.up = True
        self.forgot = False
        self.acks_lost = False
        self.slow_seconds = 0.0
        self.shut_out: Counter[str] = Counter()
        self.history: dict[str, list[tuple[GroupRecord, int]]] = {}
        self.on_commit: Callable[[GroupRecord, GroupRecord], None] = lambda before, after: None
        self.on_sent: Callable[[GroupRecord], None] = lambda record: None
        self.leader = replicas[0]
        self.ready_at = 0.0
        self._timeline = timeline
        self._network = network
        self._replicas = replicas
        self._delays = delays
        self._random = random.Random(seed)

    # ------------------------------------------------------------------ who leads, who is heard

    def _has_majority(self, site: str) -> bool:
        return 2 * sum(self._network.connected(site, other) for other in self._replicas) > len(self._replicas)

    def reachable(self, site: str) -> bool:
        """Does a leader with a majority answer `site`, by itself or through another site's server?"""
        if not self.up or self.shut_out[site]:
            return False
        network = self._network
        if not network.disturbed:
            return self._timeline.now >= self.ready_at
        if self.leader in network.unpowered or not self._has_majority(self.leader):
            better = next((site for site in self._replicas if self._has_majority(site)), None)
            if better is None:
                return False
            self.elect(better)
        if self._timeline.now < self.ready_at:
            return False
        ways = (site, *self._replicas)
        return any(network.connected(site, via) and network.connected(via, self.leader) for via in ways)

    def elect(self, leader: str) -> None:
        """Another leader, after an election."""
        self.leader = leader
        self.ready_at = self._timeline.now + self._delays.election

    def step_down(self) -> None:
        """The leader goes; the next replica follows."""
        index = self._replicas.index(self.leader)
        self.elect(self._replicas[(index + 1) % len(self._replicas)])

    # ------------------------------------------------------------------ requests

    def last(self, group: str) -> Read:
        written = self.history.get(group)
        return written[-1] if written else (None, 0)

    def read(self, site: str, group: str, deadline_seconds: float) -> Answer[Read]:
        answer: Answer[Read] = Answer()
        delay = self._delays.store + self.slow_seconds
        if delay < deadline_seconds:
            self._timeline.after(delay, self._read, site, group, answer)
        self._timeline.after(deadline_seconds, _give_up, answer, EpochStoreError("no confirmed answer in time"))
        return answer

    def _read(self, site: str, group: str, answer: Answer[Read]) -> None:
        if self.reachable(site):
            answer.set(self.last(group))

    def commit(self, site: str, record: GroupRecord, revision: int, deadline_seconds: float) -> Answer[int]:
        answer: Answer[int] = Answer()
        self.on_sent(record)
        self._timeline.after(self._delays.store + self.slow_seconds, self._commit, site, record, revision, answer)
        self._timeline.after(deadline_seconds, _give_up, answer, CommitUnknownError("no answer in time"))
        return answer

    def _commit(self, site: str, record: GroupRecord, revision: int, answer: Answer[int]) -> None:
        if not self.reachable(site):
            return
        if self.acks_lost and self._random.random() < 0.4:
            return
        before, last = self.last(record.group)
        if before is None or last != revision:
            answer.set(error=CommitRefusedError("another revision is there"))
            return
        self.history[record.group].append((record, revision + 1))
        self.on_commit(before, record)
        if not self.acks_lost:
            answer.set(revision + 1)

    def forget(self, group: str, writes: int) -> int:
        """So many acknowledged writes are gone, and their revisions are given out again. Returns how many were."""
        written = self.history.get(group, [])
        lost = min(writes, len(written) - 1)
        if lost > 0:
            del written[-lost:]
            self.forgot = True
        return max(lost, 0)

    def put_back(self, record: GroupRecord) -> None:
        """Somebody writes an old record over the one in force, as from a backup; revisions go on from there."""
        _, revision = self.last(record.group)
        self.history[record.group].append((record, revision + 1))


def _give_up(answer: Answer[Read] | Answer[int], error: Exception) -> None:
    answer.set(error=error)
