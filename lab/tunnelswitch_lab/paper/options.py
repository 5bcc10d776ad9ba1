"""What the reproduction is asked for, and what its two kinds of failover are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.redirection.methods import Garp, Method, Tunnel
from tunnelswitch_lab.redirection.system import Redirected

PARTS = ("fig4", "fig5", "phases", "report")
# As the paper calls them: Remus with gratuitous ARP, and Remus with dynamic tunnel switching.
METHODS: dict[str, type[Garp] | type[Tunnel]] = {"original": Garp, "modified": Tunnel}


@dataclass(frozen=True)
class PaperOptions:
    """How often every point is measured, which parts (none: all), and where the results go.

    `interval_ms` is that of heartbeats and BFD, three of which make a silence. `docs`: a directory whose page and
    figures are brought up to date as well.
    """

    out: Path
    runs: int = 10
    only: tuple[str, ...] = ()
    interval_ms: float = 10.0
    name: str = "paper"
    docs: Path | None = None

    @property
    def detection(self) -> str:
        """Detection in words."""
        return f"{self.interval_ms:g} ms x 3"

    def wants(self, part: str) -> bool:
        """Whether a part is asked for."""
        return not self.only or part in self.only


def chosen_parts(text: str) -> tuple[str, ...]:
    """`fig4,report` as parts, in our order; all of nothing. Raises LabError that lists the known ones."""
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    for part in wanted:
        if part not in PARTS:
            raise LabError(f"--only {part!r} is not known: {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in wanted)


def system(kind: str, workload: str, checkpoint_interval_ms: float, interval_ms: float, name: str = "") -> Redirected:
    """A kind of failover under the agents' one detection and decision."""
    method: Method = METHODS[kind](workload, checkpoint_interval_ms)
    return Redirected(method, interval_ms, name)
