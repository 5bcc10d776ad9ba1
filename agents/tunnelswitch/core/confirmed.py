"""What a leader-confirmed read last found of one group's record, and when (PROTOCOL R1)."""

from __future__ import annotations

from tunnelswitch.core.stamp import Stamp

NEVER = float("-inf")


class Confirmed:
    """Of one group at one site."""

    def __init__(self) -> None:
        self._stamp: Stamp | None = None
        self._at = NEVER

    def found(self, stamp: Stamp, now: float) -> None:
        """A confirmed read found this stamp."""
        self._stamp, self._at = stamp, now

    def at(self, stamp: Stamp) -> float:
        """When it was last read, if the last read found it and nothing else; else NEVER."""
        return self._at if self._stamp == stamp else NEVER
