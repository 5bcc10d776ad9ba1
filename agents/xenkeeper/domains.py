"""What `xl list` prints, and what follows from it for one guest. Pure.

A copy that is received is called GUEST--incoming until it takes over (xl migrate-receive). A run is one domain on one
boot of the host: Xen hands out each number once in some 32,000 domains.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

INCOMING = "--incoming"


class ListError(Exception):
    """What was printed is no list of domains."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One line of `xl list`. `state` holds the letters of xl(1), such as `r`, `b`, `p`, `c`."""

    name: str
    domid: int
    state: str

    @property
    def ended(self) -> bool:
        """Can it never run again? A crashed domain that is kept for its dump cannot, nor one that is dying."""
        return "c" in self.state or "d" in self.state


def parse(output: str) -> tuple[Domain, ...]:
    """The domains of `xl list`.

    Raises:
        ListError: it is no such list, or it lacks dom0: nothing may be concluded from it.
    """
    found = []
    for line in output.splitlines()[1:]:
        fields = line.rsplit(None, 5)
        if len(fields) != 6 or not fields[1].isdigit():
            raise ListError(f"xl list printed {line[:80]!r}")
        found.append(Domain(fields[0].strip(), int(fields[1]), fields[4]))
    if not any(domain.domid == 0 for domain in found):
        raise ListError("xl list does not name dom0")
    return tuple(found)


def run_name(boot: str, domid: int) -> str:
    """The name of one run."""
    return f"{boot}.{domid}"


def domid_of(run: str, boot: str) -> int | None:
    """The domain of a run on this boot; None for a run of another one, or no run."""
    head, _, number = run.rpartition(".")
    return int(number) if head == boot and number.isdigit() else None


def writable_disks(output: str) -> list[str]:
    """Disks that the guest may write and that no checkpoint carries, from `xl list -l DOMID`.

    Raises:
        ListError: it is no such description.
    """
    try:
        described = json.loads(output)
        disks = described[0]["config"].get("disks", [])
        return [str(disk.get("vdev") or disk.get("pdev_path") or "?") for disk in disks if disk.get("readwrite")]
    except (ValueError, LookupError, AttributeError, TypeError):
        raise ListError(f"xl list -l printed {output[:80]!r}") from None
