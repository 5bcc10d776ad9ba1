"""Virtual time: random faults, and the stories told as pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunnelswitch_lab.cli.common import app


@app.command()
def simulate(
    schedules: Annotated[int, typer.Option(min=1, help="how many")] = 100_000,
    first_seed: Annotated[int, typer.Option(min=0, help="seed of the first one; the others follow it")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="tell the story of this one seed")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="with --seed: not cut down to what the failure takes")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="processes; by default one for each processor")] = None,
) -> None:
    """Play random faults against the real decisions in virtual time. Exit status 1 if an invariant is broken."""
    from tunnelswitch_lab.simulator import telling

    unbroken = telling.series(first_seed, schedules, jobs) if seed is None else telling.story(seed, whole=whole)
    if not unbroken:
        raise SystemExit(1)


@app.command()
def scenarios(
    out: Annotated[Path, typer.Option(help="directory for the pages", file_okay=False)] = Path("docs/scenarios"),
) -> None:
    """Play the stories that an operator cares about in virtual time, and write each down as a page."""
    from tunnelswitch_lab.simulator.scenarios import SCENARIOS, told

    out.mkdir(parents=True, exist_ok=True)
    for name in SCENARIOS:
        (out / f"{name}.md").write_text(told(name), encoding="utf-8")
        print(out / f"{name}.md")
