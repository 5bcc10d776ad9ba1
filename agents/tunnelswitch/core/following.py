"""One group at a site that hosts no copy of it: a gateway's agent, or a witness (PROTOCOL R3, R6).

The stamp in a site's own OVSDB is its mark: durable, written before anything that rests on it, told in heartbeats. A
witness has nothing else to follow. At a gateway the switcher beside it is quicker; when the tunnels have not followed
the record for a while, the agent brings them to it, after a confirmed read: a dead switcher costs its clients a moment.
"""

from __future__ import annotations

from tunnelswitch.core import events
from tunnelswitch.core.actions import Action, Publish, ReadRecord
from tunnelswitch.core.facts import Applied
from tunnelswitch.core.gate import Gate, running_at
from tunnelswitch.core.member import READ_DEADLINE_SECONDS, Member
from tunnelswitch.core.stamp import Stamp

# A switcher that lives has switched long before.
PATIENCE_SECONDS = 0.25


class Follower:
    """Keeps one site's OVSDB at the record.

    Args:
        gate: the group's ends at this site; a witness has none.
    """

    def __init__(self, member: Member, gate: Gate) -> None:
        self.member = member
        self.gate = gate
        self.group = gate.group
        self._patience_seconds = PATIENCE_SECONDS if gate.ends else 0.0
        self._behind: tuple[Stamp, float] | None = None
        self._confirmed: Stamp | None = None
        self._read_at = 0.0
        self._due_at: float | None = None
        self._actions: list[Action] = []

    def receive(self, event: object, now: float) -> None:
        """Take one event, then act on it."""
        self.gate.receive(event, now)
        match event:
            case events.RecordRead() if event.group == self.group.name and event.record is not None:
                self._confirmed = event.record.stamp
            case events.SwitchApplied() if event.group == self.group.name:
                self._tell(event)
            case _:
                pass
        self.act(now)

    def act(self, now: float) -> None:
        """Step in if OVSDB has not been where the record wants it for longer than a switcher takes."""
        record, gate = self.member.records.get(self.group.name), self.gate
        self._due_at = None
        if record is None or not gate.seen:
            self._behind = None
            return
        running = running_at(record, gate.site)
        above = gate.stored is not None and gate.stored > record.stamp  # then a newer record is on its way
        if above or gate.holds(record.stamp, running):
            self._behind = None
            return
        if self._behind is None or self._behind[0] != record.stamp:
            self._behind, self._confirmed = (record.stamp, now), None  # what was read before may be long past
        due = self._behind[1] + self._patience_seconds
        if now < due:
            self._due_at = due
        elif gate.ends and self._confirmed != record.stamp:
            if now >= self._read_at:
                self._read_at = now + READ_DEADLINE_SECONDS
                self._actions.append(ReadRecord(self.group.name, READ_DEADLINE_SECONDS))
            self._due_at = self._read_at
        else:
            gate.want(record.stamp, running)
            action = gate.step(now)
            if action is not None:
                self._actions.append(action)
            self._due_at = gate.deadline()

    def _tell(self, result: events.SwitchApplied) -> None:
        """The certificate of PROTOCOL R6 (i) is a gateway's word, whoever of the two switched."""
        if self.gate.ends and self.gate.settled(result.stamp):
            seconds = result.applied_at - result.submitted_at
            told = Applied(self.gate.site, self.group.name, result.stamp, tuple(sorted(self.gate.present)), seconds)
            self._actions.append(Publish(told))

    def deadline(self) -> float | None:
        """When time alone may change something."""
        return self._due_at

    def take_actions(self) -> list[Action]:
        """What to do, in order."""
        actions, self._actions = self._actions, []
        return actions
