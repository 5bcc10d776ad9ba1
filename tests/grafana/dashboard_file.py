"""The dashboard and the alert rules as data, for the tests of both."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnelswitch.config import load
from tunnelswitch.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "grafana/dashboards/tunnelswitch.json"
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yml"
RULES = ROOT / "deploy/prometheus/rules.yml"
RULES_TEST = ROOT / "deploy/prometheus/rules_test.yml"
RUNBOOKS = ROOT / "docs/runbooks"

VARIABLES = {
    "$cluster": "lab",
    "$group": ".*",
    "$service": ".*",
    "$__rate_interval": "2s",
    "$__range": "60s",
    "$__interval": "1s",
}
_SELECTOR = re.compile(r"tunnelswitch_\w+(?:\{[^}]*\})?")


@dataclass(frozen=True)
class Query:
    """One query of one panel; an instant one has a single time."""

    panel: str
    expression: str
    is_instant: bool


def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text(encoding="utf-8")))


def panels() -> list[dict[str, Any]]:
    """Every panel, rows included."""
    found = []
    for panel in dashboard()["panels"]:
        found += [panel, *panel.get("panels", [])]
    return found


def queries() -> list[Query]:
    """Every query that the page makes, variables filled in: panels, annotations and the variables themselves."""
    asked = [
        Query(panel["title"], substitute(target["expr"]), target["instant"])
        for panel in panels()
        for target in panel.get("targets", [])
    ]
    annotations = [annotation for annotation in dashboard()["annotations"]["list"] if "expr" in annotation]
    asked += [Query(annotation["name"], substitute(annotation["expr"]), False) for annotation in annotations]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.+), \w+\)", variable["definition"])
            assert selector is not None, variable["definition"]
            asked.append(Query(f"variable {variable['name']}", substitute(selector[1]), True))
    return asked


def substitute(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def alerts() -> list[str]:
    return re.findall(r"(?m)^ +- alert: (\S+)$", RULES.read_text(encoding="utf-8"))


def rule_selectors() -> set[str]:
    """The series that the rules ask for."""
    lines = [line for line in RULES.read_text(encoding="utf-8").splitlines() if "summary:" not in line]
    return set(_SELECTOR.findall("\n".join(lines)))


def sample_names() -> set[str]:
    """Every name that a sample of ours can have."""
    deployment = load(ROOT / "deploy/example.toml")
    names = set()
    for family in Metrics(deployment, "gateway", "switcher").families.registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names
