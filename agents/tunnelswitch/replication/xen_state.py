"""What is known of one guest under Xen, folded from what its keeper says. Pure.

A keeper that is not heard says nothing about the guest: the last state stands. A run has ended when the keeper saw its
domain end, or when its host has been booted since.
"""

from __future__ import annotations

from collections import deque

from tunnelswitch.core.events import RunExited, ServiceSeen
from tunnelswitch.core.facts import CheckpointSeen, Protection
from tunnelswitch.replication.xen_link import KeeperMessage

_ENDED_MAX = 16
_ROLES = ("active", "standby", "stopped")


class Guest:
    """The local copy of a guest."""

    def __init__(self, service: str, site: str) -> None:
        self.service, self.site = service, site
        self.seen = ServiceSeen(service, "", "stopped", Protection.STOPPED, in_sync=False)
        self.obstacle = ""
        self.known = False
        self._boot = ""
        self._ended: deque[str] = deque(maxlen=_ENDED_MAX)

    def has_ended(self, run: str) -> bool:
        """Is it a fact that this run has ended?"""
        return run in self._ended

    def attached(self, boot: str) -> list[object]:
        """A keeper was reached. What ran on another boot of its host has ended. Returns what to emit."""
        former, self._boot = self._boot, boot
        if former in ("", boot) or not self.seen.run:
            return []
        return [
            *self._end(self.seen.run),
            *self._become(ServiceSeen(self.service, "", "stopped", Protection.STOPPED, False)),
        ]

    def take(self, message: KeeperMessage) -> list[object]:
        """Fold one event. Returns what to emit.

        Raises:
            ValueError: it makes no sense; nothing was changed.
        """
        match message.event:
            case "state":
                return self._take_state(message)
            case "checkpoint":
                return self._take_checkpoint(message)
            case "ended":
                return self._end(message.run)
        return []

    def _take_state(self, message: KeeperMessage) -> list[object]:
        if message.role not in _ROLES or bool(message.run) != (message.role != "stopped"):
            raise ValueError(f"a state of run {message.run!r} as {message.role!r}")
        seen = ServiceSeen(
            self.service, message.run, message.role, Protection(message.protection), message.in_sync, message.sequence
        )
        ended = [event for run in message.ended for event in self._end(run)]
        if not message.known:
            return ended
        self.known, self.obstacle = True, message.obstacle
        if message.run in self._ended:  # after some 32,000 domains on one boot Xen begins again with its numbers
            self._ended.remove(message.run)
        return [*ended, *self._become(seen)]

    def _take_checkpoint(self, message: KeeperMessage) -> list[object]:
        if message.role not in _ROLES or message.pause_seconds < 0 or message.bytes < 0:
            raise ValueError(f"a checkpoint of a {message.role!r}")
        if message.run != self.seen.run:
            return []
        told = (message.run, message.role, message.sequence, message.pause_seconds, message.bytes)
        return [CheckpointSeen(self.site, self.service, *told)]

    def promoted(self) -> list[object]:
        """A verified promotion: the copy serves, and has no standby of its own yet. Returns what to emit."""
        seen = self.seen
        return self._become(
            ServiceSeen(self.service, seen.run, "active", Protection.UNPROTECTED, False, seen.checkpoint_sequence)
        )

    def _end(self, run: str) -> list[object]:
        if run in self._ended:
            return []
        self._ended.append(run)
        return [RunExited(self.service, run)]

    def _become(self, seen: ServiceSeen) -> list[object]:
        """Tell what has changed."""
        news = seen != self.seen or not self.known
        self.seen = seen
        return [seen] if news else []
