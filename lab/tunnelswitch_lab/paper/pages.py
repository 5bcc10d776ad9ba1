"""Brings a page of documentation up to date: its figures, and the tables between two marks in its README.md.

Everything else of the page is its author's.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.paper.calls import CALLERS
from tunnelswitch_lab.paper.figures import KINDS
from tunnelswitch_lab.paper.files import in_ms, read_json

PAGE = "README.md"
BEGIN, END = "<!-- measured: written by tunnelswitch-lab paper --docs -->", "<!-- end of what was measured -->"
FIGURES = (*(f"fig4-{caller}.svg" for caller in CALLERS), "fig5.svg", "phases.svg")


def update(out: Path, docs: Path) -> list[Path]:
    """Copy the figures and rewrite the tables; returns what was changed. Raises LabError if the page has no marks."""
    page = docs / PAGE
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise LabError(f"--docs {docs} holds no page to bring up to date: {error.strerror}") from None
    changed = replaced(text, measured(out))
    copied = [Path(shutil.copyfile(out / name, docs / name)) for name in FIGURES if (out / name).exists()]
    page.write_text(changed, encoding="utf-8")
    return [page, *copied]


def replaced(text: str, block: str) -> str:
    """The page with another block between its marks. Raises LabError if they are not there, in order and once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise LabError(f"the page must hold {BEGIN} and then {END}, once each")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{block.strip()}\n\n{END}{rest.split(END)[1]}"


def measured(out: Path) -> str:
    """Everything that was measured, in Markdown; what was not is left out."""
    parts = {part: read_json(out / f"{part}.json") for part in ("fig4", "fig5", "phases")}
    pieces = [
        make(content)
        for make, content in ((_fig4, parts["fig4"]), (_fig5, parts["fig5"]), (_phases, parts["phases"]))
        if content
    ]
    return "\n\n".join([_environment(parts), *pieces]) + "\n"


def _environment(parts: dict[str, dict[str, Any] | None]) -> str:
    known = [content["environment"] for content in parts.values() if content]
    if not known:
        return "Nothing was measured."
    first = known[0]
    versions = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in first["versions"].items() if value)
    loads = [load for one in known for load in (one["load_average"][0], one["load_average_after"][0])]
    return (
        f"{first['measured_at'][:10]}; {first['cpu'] or 'unknown processor'}, {first['cores']} cores,"
        f" {first['memory_mib']} MiB, Linux {first['kernel']}, {first['distribution'] or ''}; {versions}."
        f" Load averages {min(loads):.1f} to {max(loads):.1f}."
    )


def _fig4(summary: dict[str, Any]) -> str:
    lines = ["### Fig. 4", ""]
    rows = []
    for caller, what in CALLERS.items():
        lines += [f"![Jitter and outage, {what}](fig4-{caller}.svg)", ""]
        for call in (one for one in summary["calls"] if one["caller"] == caller):
            jitters = [one for one in call["tshark"] if one["what"].endswith("jitter")]
            said = [f"{one['ours']:.3f} / {one['theirs']:.3f}" for one in jitters]
            lost = next(one for one in call["tshark"] if one["what"] == "lost packets")
            agrees = "yes" if all(one["agrees"] for one in call["tshark"]) else "NO"
            outage = in_ms(call["outage_seconds"])
            rows.append((what, call["kind"], outage, f"{lost['ours']} / {lost['theirs']}", *said, agrees))
    heads = ("call", "failover", "outage ms", "lost", "mean jitter ms", "largest jitter ms", "tshark agrees")
    return "\n".join(
        [*lines, *_table(heads, rows), "", f"Ours / tshark's; {summary['fault']}, detection {summary['detection']}."]
    )


def _fig5(summary: dict[str, Any]) -> str:
    lines = ["### Fig. 5", "", "![Downtime against checkpoint interval](fig5.svg)", ""]
    by = {(point["interval_ms"], point["kind"]): point for point in summary["points"]}
    rows = []
    for interval in dict.fromkeys(point["interval_ms"] for point in summary["points"]):
        points = [by[interval, kind] for kind in KINDS]
        cells = [
            f"{in_ms(p['median_seconds'])} ({in_ms(p['min_seconds'], 0)} to {in_ms(p['max_seconds'], 0)})"
            for p in points
        ]
        rows.append((f"{interval:g}", *cells, " / ".join(f"{p['runs']}" for p in points)))
    heads = ("interval ms", *(f"{kind}: median (range)" for kind in KINDS), "runs")
    slopes = ", ".join(f"{kind} {_range(summary['slopes'][kind], 100_000)}" for kind in KINDS)
    pooled = "; ".join(
        f"{kind} {in_ms(one['median'])} ms ({in_ms(one['min'])} to {in_ms(one['max'])}), {one['runs']} runs"
        for kind, one in summary["pooled"].items()
    )
    return "\n".join(
        [
            *lines,
            *_table(heads, rows),
            "",
            f"Milliseconds; {summary['fault']}, {summary['workload']}, detection {summary['detection']}.",
            "",
            f"- All intervals together: {pooled}.",
            f"- Per 100 ms of interval: {slopes}.",
            f"- Modified less original, medians: {_range(summary['difference'], 1000)}.",
        ]
    )


def _phases(summary: dict[str, Any]) -> str:
    names = list(dict.fromkeys(name for row in summary["rows"] for name in row["phases_seconds"]))
    heads = ("fault", "protected", *names, "downtime: median (range)", "runs")
    rows = []
    for row in summary["rows"]:
        whole = row["downtime_seconds"]
        downtime = f"{in_ms(whole['median'])} ({in_ms(whole['min'], 0)} to {in_ms(whole['max'], 0)})"
        phases = (in_ms(row["phases_seconds"].get(name)) for name in names)
        rows.append((row["fault"], row["workload"], *phases, downtime, f"{whole['runs']}"))
    lines = ["### Where the downtime goes", "", "![Phases of the downtime](phases.svg)", ""]
    return "\n".join([*lines, *_table(heads, rows), "", f"Milliseconds, medians; detection {summary['detection']}."])


def _range(one: dict[str, float | None], factor: float) -> str:
    value, low, high = one["value"], one["low"], one["high"]
    if value is None:
        return "–"
    told = f"{value * factor:+.1f} ms"
    return told if low is None or high is None else f"{told} ({low * factor:+.1f} to {high * factor:+.1f})"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]
