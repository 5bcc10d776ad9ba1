"""The fencing token: which decision is in force for a group (PROTOCOL R1).

A stamp is totally ordered. `epoch` counts moves of the active role, `decision_id` tells two decisions of one epoch
apart (a store that forgot an acknowledged write can produce such a pair), `minor` counts re-arms within the epoch. Any
change of the stamp voids the evidence gathered under the one before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TEXT = re.compile(r"(\d{1,15})\.(\d{1,9})-([A-Za-z0-9_.:-]{1,64})")


@dataclass(frozen=True, slots=True, order=True)
class Stamp:
    """The order is by epoch, then decision, then minor. The text form is `EPOCH.MINOR-DECISION`."""

    epoch: int
    decision_id: str
    minor: int = 0

    def __str__(self) -> str:
        return f"{self.epoch}.{self.minor}-{self.decision_id}"

    @classmethod
    def parse(cls, text: str) -> Stamp:
        """Read the text form.

        Raises:
            ValueError: the text is not a stamp.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a stamp: expected EPOCH.MINOR-DECISION, such as 7.0-gw.a1b2.3")
        epoch, minor, decision_id = match.groups()
        return cls(int(epoch), decision_id, int(minor))

    def rearmed(self) -> Stamp:
        """The next stamp of the same epoch and decision."""
        return Stamp(self.epoch, self.decision_id, self.minor + 1)
