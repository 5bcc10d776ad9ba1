"""What a switcher says of its decisions and refusals: each once while it holds, and again when it comes back."""

from __future__ import annotations

from tunnelswitch.core.facts import Decision
from tunnelswitch.core.stamp import Stamp

# A condition not seen for so long has ended.
SAID_SECONDS = 3.0


class Sayings:
    """Of one group at one site."""

    def __init__(self, site: str, group: str) -> None:
        self._site = site
        self._group = group
        self._said: dict[tuple[Stamp, str, str], float] = {}

    def again(self) -> None:
        """Somebody asks: whatever holds is said once more."""
        self._said.clear()

    def new(self, stamp: Stamp, action: str, reason: str, evidence: tuple[str, ...], now: float) -> Decision | None:
        """The decision to publish, or None if it is being said already."""
        key = (stamp, action, reason)
        said_at = self._said.pop(key, float("-inf"))
        self._said = {key: at for key, at in self._said.items() if now - at <= SAID_SECONDS}
        self._said[key] = now
        if now - said_at <= SAID_SECONDS:
            return None
        return Decision(self._site, self._group, stamp, action, reason, evidence)
