"""Which seed and which invariant find each planted bug: `found.json` holds the last search, docs/simulator.md shows it.

    python tests/simulator/found.py [--jobs N] [NAME ...]   searches again for these, or for all
    python tests/simulator/found.py --table                 only writes the table

A search takes the seeds that found something the last time, then all in order, until one breaks a rule.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from planted import PLANTED

from tunnelswitch_lab.simulator.playing import play
from tunnelswitch_lab.simulator.running import unlogged
from tunnelswitch_lab.simulator.schedule import draw

FOUND = Path(__file__).with_name("found.json")
SEEDS_MAX = 20_000
PAGE = Path(__file__).parents[2] / "docs" / "simulator.md"
BEGIN, END = "<!-- generated: planted bugs -->", "<!-- end of generated -->"


def search(name: str, seeds: Iterable[int] = range(SEEDS_MAX)) -> dict[str, object] | None:
    """The first of the seeds that finds the bug, and the rule that it breaks."""
    with unlogged(), PLANTED[name]():
        for seed in seeds:
            violation = play(draw(seed))
            if violation is not None:
                return {"seed": seed, "rule": violation.rule, "what": violation.what}
    return None


def read() -> dict[str, dict[str, object]]:
    """By name of the bug: seed, rule, what."""
    loaded: dict[str, dict[str, object]] = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    return loaded


def _search_all(name: str) -> dict[str, object] | None:
    known = sorted({int(str(result["seed"])) for result in read().values()})
    return search(name, known) or search(name)


def table() -> str:
    """The page with the table of what is found."""
    rows = [f"| {name} | {result['seed']} | {result['rule']} |" for name, result in read().items()]
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    tail = rest.split(END)[1]
    lines = ["| planted bug | seed | found by |", "|---|---|---|", *rows]
    return "\n".join([f"{head}{BEGIN}", "", *lines, "", f"{END}{tail}"])


def main(names: list[str]) -> int:
    """Search, write, and say what was not found."""
    if names == ["--table"]:
        PAGE.write_text(table(), encoding="utf-8")
        return 0
    jobs = None
    if names[:1] == ["--jobs"]:
        jobs, names = int(names[1]), names[2:]
    found = {} if not names else read()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        chosen = names or list(PLANTED)
        for name, result in zip(chosen, pool.map(_search_all, chosen), strict=True):
            said = f"{result['rule']} by seed {result['seed']}" if result else "NOT FOUND"
            sys.stdout.write(f"{name}: {said}\n")
            sys.stdout.flush()
            found.pop(name, None)
            if result:
                found[name] = result
    FOUND.write_text(json.dumps({name: found[name] for name in PLANTED if name in found}, indent=1) + "\n")
    PAGE.write_text(table(), encoding="utf-8")
    return len(chosen) - sum(name in found for name in chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
