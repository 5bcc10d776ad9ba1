"""The main job, shown: a site is lost, then a service crashes, and each time a client on the phone is measured.

It only runs two series and prints them side by side; what must hold is checked by the experiment. The service is a
virtual machine, or a process where there is no QEMU to be had for one; it says which.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tunnelswitch_lab.experiment import CheckFailedError, run_experiment, say
from tunnelswitch_lab.guest.image import image, qemu_command
from tunnelswitch_lab.guest.machine import kvm_works
from tunnelswitch_lab.options import LabError, RunOptions

FAULTS = ("host-loss", "service-crash")
PAPER_SECONDS = "1.3 to 1.5 s"


@dataclass(frozen=True, slots=True)
class Shown:
    """One fault's summary, or why its checks failed."""

    fault: str
    run: dict[str, Any] | None
    problem: str = ""


def best_workload() -> str:
    """`vm` if QEMU and a guest are here or can be fetched, else `process`, said aloud with the reason."""
    say("a QEMU and a guest for it (fetched the first time) ...")
    try:
        qemu_command()
        image()
    except LabError as error:
        say(f"no virtual machine can be protected here: {error}")
        say("the protected service is a process instead")
        return "process"
    return "vm"


async def run_demo(options: RunOptions) -> None:
    """Run every fault of the demo once, below `options.out`, and print a table.

    Raises:
        CheckFailedError: a fault did not end as it must; both were tried and are in the table.
        LabError: the lab cannot be built.
    """
    started_at = time.monotonic()
    shown = [await _show(replace(options, fault=fault, out=options.out / fault)) for fault in FAULTS]
    _print(shown, options, time.monotonic() - started_at)
    failed = [f"{one.fault}: {one.problem}" for one in shown if one.problem]
    if failed:
        raise CheckFailedError("; ".join(failed))


async def _show(options: RunOptions) -> Shown:
    say(f"--- {options.fault} ---")
    try:
        summary = await run_experiment(options)
    except CheckFailedError as error:
        return Shown(options.fault, None, str(error))
    return Shown(options.fault, summary["runs"][-1])


def _print(shown: list[Shown], options: RunOptions, seconds: float) -> None:
    console = Console()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column in ("fault", "verdict", "serves now"):
        table.add_column(column, no_wrap=True)
    # Narrow on purpose: it must fit 80 columns.
    for column in ("seen", "epoch", "switch", "answer", "down", "lost"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in shown:
        if one.run is None:
            table.add_row(one.fault, f"[red]failed[/]: {one.problem}")
            continue
        run, marks = one.run, one.run["marks"]
        phases = (marks["verdict"], marks["committed"], marks["applied"], run["probe_first_packet_seconds"])
        table.add_row(
            one.fault,
            run["verdict"],
            run["active_site"],
            *(_milliseconds(phase) for phase in phases),
            _milliseconds(run["probe_downtime_seconds"]),
            str(run["lost_packets"]),
        )
    console.print()
    console.print(table)
    console.print(f"Protected: {_protected(options)}.", highlight=False, soft_wrap=True)
    console.print(
        "Milliseconds from the fault to: its verdict, the committed epoch, the switched tunnel, the first answer.\n"
        f"Down is what the client's 1 kHz probe missed; the paper's figure is {PAPER_SECONDS}. {seconds:.0f} s in all.",
        highlight=False,
        soft_wrap=True,
    )
    for one in shown:
        console.print(f"report: {options.out / one.fault / 'report.html'}", highlight=False, soft_wrap=True)


def _protected(options: RunOptions) -> str:
    every = f"checkpointed every {options.lab.checkpoint_interval_ms:g} ms"
    if options.lab.workload == "process":
        return f"a process, {every}"
    return f"a virtual machine (QEMU COLO, {'KVM' if kvm_works() else 'TCG: no KVM here'}), {every}"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value * 1000:.1f}"
