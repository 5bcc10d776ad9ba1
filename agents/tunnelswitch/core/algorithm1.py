"""Algorithm 1 of the paper, "Dynamic tunnel switching method", as a function.

    1  begin
    2  {
    3    repeat;
    4    {
    5      check running server;
    6      if (running server = primary)
    7        then
    8          add tunnel 2, remove tunnel 3;
    9        else
    10         add tunnel 3, remove tunnel 2;
    11     end if
    12   }
    13 }

"Check running server" is the committed record's active site, never a guess. "Repeat" is the caller's: on every event
and once a second. A tunnel that is there is not added again, one that is gone is not removed again, so repeating
changes nothing once the state is right.
"""

from __future__ import annotations

from dataclasses import dataclass

T2 = "T2"
T3 = "T3"


@dataclass(frozen=True, slots=True)
class TunnelChange:
    """What to add and remove, to be done in one transaction."""

    add: frozenset[str]
    remove: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


def switch_tunnels(*, running: str, primary: str, present: frozenset[str]) -> TunnelChange:
    """Lines 5 to 11: from the running server and the client tunnels present at a gateway to the change that leaves
    exactly one of T2 and T3."""
    wanted, unwanted = (T2, T3) if running == primary else (T3, T2)
    return TunnelChange(add=frozenset({wanted}) - present, remove=frozenset({unwanted}) & present)
