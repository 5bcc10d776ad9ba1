"""How the parts leave their results: JSON with times in seconds, CSV with what a spreadsheet needs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tunnelswitch_lab.measure.environment import describe_environment


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write durations to the microsecond. Raises OSError."""
    path.write_text(json.dumps(_rounded(content), indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """What a part has left, or None if it has left nothing that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_csv(path: Path, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; None is an empty cell. Raises OSError."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(heads)
        writer.writerows(rows)


def finished(environment: dict[str, Any]) -> dict[str, Any]:
    """The environment of a part that is over: the load then beside the load when it began."""
    return environment | {"load_average_after": describe_environment()["load_average"]}


def in_ms(seconds: float | None, digits: int = 1) -> str:
    """Milliseconds for a table; a dash for what was not seen."""
    return "–" if seconds is None else f"{seconds * 1000:.{digits}f}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value
