"""report.html and summary.json of the reproduction, out of what its parts and other commands have left.

It computes nothing and draws no conclusion: what was measured stands beside what the paper says.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.paper import others, series
from tunnelswitch_lab.paper.calls import CALLERS, read_packets
from tunnelswitch_lab.paper.figures import KINDS, LABELS, fig4, style
from tunnelswitch_lab.paper.files import in_ms, read_json, write_json
from tunnelswitch_lab.paper.options import PARTS, PaperOptions

REPORT, SUMMARY = "report.html", "summary.json"
MEASURED = tuple(part for part in PARTS if part != "report")


def write_report(options: PaperOptions) -> Path:
    """Write both below `options.out`; returns where the page is. Raises OSError."""
    out = options.out
    parts = {part: read_json(out / f"{part}.json") for part in MEASURED}
    environment = next((p["environment"] for p in parts.values() if p), None) or describe_environment()
    write_json(out / SUMMARY, {**parts, "agreement": agreement(parts["fig4"]), "environment": environment})
    beside = others.found(out)
    page = _template().render(
        parts=parts,
        kinds=KINDS,
        labels=LABELS,
        callers=CALLERS,
        agreement=agreement(parts["fig4"]),
        pictures=_pictures(out, parts),
        others=[(other, os.path.relpath(other.path, out)) for other in beside],
        environment=environment,
        style=Markup(style()),
        points=_points(parts["fig5"]),
    )
    (out / REPORT).write_text(page, encoding="utf-8")
    return out / REPORT


def agreement(calls: dict[str, Any] | None) -> dict[str, int]:
    """How many of the figures of all calls tshark sees as we do."""
    compared = [one for call in (calls or {}).get("calls", []) for one in call["tshark"]]
    return {"agree": sum(one["agrees"] for one in compared), "of": len(compared)}


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tunnelswitch_lab.paper", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(ms=in_ms)
    return environment.get_template("report.html.j2")


def _pictures(out: Path, parts: dict[str, dict[str, Any] | None]) -> dict[str, Markup]:
    """Every figure that there is; drawn by our own code, which escapes what it is given."""
    made: dict[str, str] = {}
    if calls := parts["fig4"]:
        for caller in CALLERS:
            mine = {call["kind"]: call["place"] for call in calls["calls"] if call["caller"] == caller}
            if mine:
                made[f"fig4-{caller}"] = fig4({kind: read_packets(out / place) for kind, place in mine.items()})
    if points := parts["fig5"]:
        made["fig5"] = series.fig5_picture(points)
    if rows := parts["phases"]:
        made["phases"] = series.phases_picture(rows)
    return {name: Markup(picture) for name, picture in made.items()}


def _points(summary: dict[str, Any] | None) -> dict[float, dict[str, dict[str, Any]]]:
    """The points of Fig. 5 by interval and kind."""
    found: dict[float, dict[str, dict[str, Any]]] = {}
    for point in (summary or {}).get("points", []):
        found.setdefault(point["interval_ms"], {})[point["kind"]] = point
    return found
