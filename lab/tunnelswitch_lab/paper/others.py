"""What other commands measured, beside the paper's own figures: their summaries as tables, whatever is in them.

Pure, apart from reading the summaries. It knows no command's keys but the names of their directories: a list of
objects is a table, an object of plain values too. Times are seconds in a key that ends so, and are shown in
milliseconds where all of a column are short.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnelswitch_lab.paper.files import read_json

TITLES = {
    "bench": "Beside its peers",
    "redirect": "Four ways to bring the clients over",
    "wan": "Over a wide area network",
    "growth": "How it grows",
}
_ROWS_MAX, _COLUMNS_MAX, _TEXT_MAX = 60, 14, 90
_SHORT_SECONDS = 10.0
_SKIPPED = ("environment",)


@dataclass(frozen=True, slots=True)
class Table:
    """One table; `left_out` says how many rows and columns there are that it does not show."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class Other:
    """What one command has left."""

    name: str
    title: str
    path: Path
    measured_at: str
    tables: list[Table]


def found(out: Path) -> list[Other]:
    """The summaries beside `out`, such as out/bench/summary.json for out/paper, as far as they are there."""
    others = []
    for name, title in TITLES.items():
        path = out.parent / name / "summary.json"
        content = read_json(path)
        if content is None:
            continue
        environment = content.get("environment")
        measured_at = str(environment.get("measured_at", "")) if isinstance(environment, dict) else ""
        if shown := tables(content):
            others.append(Other(name, title, path, measured_at, shown))
    return others


def tables(content: Mapping[str, Any]) -> list[Table]:
    """Every part of a summary that is a table, in its order."""
    made = []
    for key, value in content.items():
        if key in _SKIPPED:
            continue
        if isinstance(value, list):
            rows = [row for row in value if isinstance(row, dict)]
        elif isinstance(value, dict) and value and all(isinstance(one, dict) for one in value.values()):
            rows = [{"": name, **one} for name, one in value.items()]
        elif isinstance(value, dict) and value:
            rows = [{"": name, "value": one} for name, one in value.items()]
        else:
            continue
        if table := _table(_words(key), [_flat(row) for row in rows]):
            made.append(table)
    return made


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose objects have become columns: `gap_seconds` with a median becomes `gap median_seconds`."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            unit = "_seconds" if key.endswith("_seconds") else ""
            for name, inner in value.items():
                if not isinstance(inner, dict | list):
                    flat[f"{key.removesuffix('_seconds')} {name.removesuffix(unit)}{unit}"] = inner
        elif isinstance(value, list):
            if value and all(isinstance(one, str) for one in value):
                flat[key] = "; ".join(value)
        else:
            flat[key] = value
    return flat


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table | None:
    columns = dict.fromkeys(key for row in rows for key in row)
    filled = [key for key in columns if any(row.get(key) not in (None, "") for row in rows)]
    if not filled:
        return None
    kept, shown = filled[:_COLUMNS_MAX], rows[:_ROWS_MAX]
    scales = {key: _scale(key, [row.get(key) for row in rows]) for key in kept}
    left = [
        f"{many} more {what}"
        for many, what in ((len(rows) - len(shown), "rows"), (len(filled) - len(kept), "columns"))
        if many
    ]
    return Table(
        title,
        [_words(key.removesuffix("_seconds")) + scales[key][1] for key in kept],
        [[_cell(row.get(key), scales[key][0]) for key in kept] for row in shown],
        " and ".join(left),
    )


def _scale(key: str, values: Iterable[Any]) -> tuple[float, str]:
    """By what a column's numbers are multiplied, and its unit."""
    if not key.endswith("_seconds"):
        return 1.0, ""
    longest = max((abs(v) for v in values if isinstance(v, int | float)), default=0.0)
    return (1000.0, ", ms") if longest < _SHORT_SECONDS else (1.0, ", s")


def _cell(value: Any, factor: float) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        scaled = value * factor
        return f"{scaled:.1f}" if factor != 1.0 else f"{scaled:.6g}"
    text = str(value)
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"


def _words(key: str) -> str:
    return key.replace("_", " ")
