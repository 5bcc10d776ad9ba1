"""What the commands share: the application, their options, and how work is run to its end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from tunnelswitch_lab import faults
from tunnelswitch_lab.options import BUFFERINGS, WORKLOADS, LabError, check_checkpoint_interval, check_workload

T = TypeVar("T")

app = typer.Typer(
    help="The testbed on one machine: three sites with real switches, a real bus, and faults.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Option(help="which lab; several may live at once")]
Detect = Annotated[str, typer.Option(help="heartbeat and BFD interval in milliseconds x multiplier")]
Workload = Annotated[str, typer.Option(help="what is protected: " + ", ".join(WORKLOADS))]
Tls = Annotated[bool, typer.Option("--tls", help="encrypt the bus; keys and permissions it always has")]
Interval = Annotated[
    float | None,
    typer.Option(help="milliseconds from checkpoint to checkpoint; by default 25 for a process, 100 for a vm"),
]
Compress = Annotated[bool, typer.Option("--compress/--no-compress", help="a vm's checkpoints on their way over T1")]
Buffering = Annotated[str, typer.Option(help="output of a vm waits for its checkpoint: " + ", ".join(BUFFERINGS))]


def protected_by(workload: str, checkpoint_interval_ms: float | None) -> tuple[str, float]:
    """What is protected, and how often it is checkpointed. Raises LabError for what there is not."""
    known = check_workload(workload)
    return known, check_checkpoint_interval(known, checkpoint_interval_ms)


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end; an interrupt or a SIGTERM lets it clean up, and then ends the program with status 130."""
    # asyncio turns SIGINT into a cancellation, and that cleans up, unless a script's `&` made us ignore it. A polite
    # end deserves the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        print("tunnelswitch-lab: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def check_fault(name: str) -> None:
    """Raises LabError for what there is not."""
    try:
        faults.find(name)
    except ValueError as error:
        raise LabError(str(error)) from None


def judged(summary: Mapping[str, Any], out: Path) -> None:
    """Say what is not as it must be, or where everything is; exit status 1 if there is something."""
    print("\n".join(summary["problems"]) or f"all as it must be: {out / 'summary.json'}")
    end(summary["problems"])


def end(problems: object) -> None:
    """Exit status 1 if there are any."""
    if problems:
        raise SystemExit(1)
