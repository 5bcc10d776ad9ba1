"""All cases of the matrix by name, and the few that stand for them in the test suite."""

from __future__ import annotations

from collections.abc import Sequence

from tunnelswitch_lab import faults
from tunnelswitch_lab.matrix import doubles, links, machines, processes
from tunnelswitch_lab.matrix.cases import MOVES, STAYS, Case, Clients, Expected
from tunnelswitch_lab.matrix.steps import Inject
from tunnelswitch_lab.options import LabError

SHORT = (
    "service-primary-hangs",
    "primary-cannot-send",
    "vswitchd-primary-hangs",
    "stale-switcher-wakes",
    "ovsdb-restored",
    "host-loss-and-switcher-killed",
)


def _plain(fault: faults.Fault) -> Case:
    """A fault of the plain catalogue as a case."""
    copies, clients = (MOVES, Clients.INTERRUPTED) if fault.failover else (STAYS, Clients.UNAWARE)
    return Case(fault.name, fault.does, (Inject(fault.name),), Expected(fault.verdict, copies, clients))


def _all() -> dict[str, Case]:
    plain = [_plain(fault) for fault in faults.FAULTS.values()]
    cases = [*plain, *processes.cases(), *links.cases(), *machines.cases(), *doubles.cases()]
    return {case.name: case for case in cases}


CASES = _all()


def chosen(only: Sequence[str]) -> list[Case]:
    """Those of these names, in the catalogue's order; all for none. Raises LabError that says what there is."""
    unknown = [name for name in only if name not in CASES]
    if unknown:
        raise LabError(f"there is no fault {unknown[0]!r}: tunnelswitch-lab faults --list shows those that there are")
    return [case for name, case in CASES.items() if not only or name in only]
