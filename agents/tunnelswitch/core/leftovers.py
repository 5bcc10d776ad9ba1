"""A standby that its active has left while it goes on is of no use: no driver takes it back, and what it holds may not
be promoted. It is ended, so that whoever keeps a copy there (systemd, say) starts a fresh one.

It may be all that is left of a state that nobody took over. So it is kept for as long as the record may still name it,
and while its active is not seen to live and to be within reach.
"""

from __future__ import annotations

from tunnelswitch.core.confirmed import Confirmed
from tunnelswitch.core.copies import Instance
from tunnelswitch.core.facts import Bus, GroupRecord, Path
from tunnelswitch.core.member import Member

# A record that does not name it must have been confirmed so long after it was left: what the active claimed of it until
# then may still have been on its way into one.
LEFT_SECONDS = 5.0


class Leftovers:
    """One group at one server site."""

    def __init__(self, member: Member, confirmed: Confirmed) -> None:
        self._member = member
        self._confirmed = confirmed

    def has(self, instance: Instance, record: GroupRecord, now: float) -> bool:
        """Is this copy of a group that is served elsewhere to be ended?"""
        left_at = instance.left_at
        if left_at is None or instance.seen.role != "standby" or record.in_sync:
            return False
        if self._confirmed.at(record.stamp) < left_at + LEFT_SECONDS:
            return False
        if record.active not in self._member.detector:
            return False
        active = self._member.detector.observation(record.active, now)
        return active.path is Path.UP and active.bus is Bus.ALIVE
