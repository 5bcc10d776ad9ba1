"""The dashboard as a file: what Grafana would refuse or show badly is found without one."""

from __future__ import annotations

import itertools
import re

import pytest
from dashboard_file import ROOT, RULES, RULES_TEST, dashboard, panels, queries, sample_names

KNOWN_TYPES = {"row", "timeseries", "stat", "state-timeline", "table", "heatmap", "bargauge"}
SECTIONS = ("Services", "Downtime", "Checkpoints", "jitter and gap", "Decisions", "Bus and loop health")


def test_it_is_provisioned_and_cannot_drift() -> None:
    page = dashboard()
    assert (page["uid"], page["id"], page["schemaVersion"]) == ("tunnelswitch", None, 39)
    providers = (ROOT / "grafana/provisioning/dashboards/tunnelswitch.yml").read_text(encoding="utf-8")
    assert "allowUiUpdates: false" in providers
    assert "disableDeletion: true" in providers
    sources = (ROOT / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8")
    assert "uid: tunnelswitch-prometheus" in sources
    assert "editable: false" in sources


def test_variables() -> None:
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    assert list(variables) == ["datasource", "cluster", "group", "service"]
    assert variables["datasource"]["query"] == "prometheus"
    assert all(variables[name]["multi"] and variables[name]["includeAll"] for name in ("group", "service"))


def test_rows_say_what_operators_ask() -> None:
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert all(any(section in row for row in rows) for section in SECTIONS), rows


def test_panels_have_ids_titles_units_and_the_chosen_data_source() -> None:
    everything = panels()
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert {panel["type"] for panel in everything} <= KNOWN_TYPES
    shown = [panel for panel in everything if panel["type"] != "row"]
    assert len({(panel["title"], panel["type"]) for panel in shown}) == len(shown)
    for panel in shown:
        where = panel["title"]
        assert panel["description"], where
        assert panel["fieldConfig"]["defaults"]["unit"], where
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, where
        references = [target["refId"] for target in panel["targets"]]
        assert references, where
        assert len(set(references)) == len(references), where
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"]), where
        assert all(target["instant"] != target["range"] for target in panel["targets"]), where


def test_panels_lie_side_by_side() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        grid = panel["gridPos"]
        assert 0 <= grid["x"] < grid["x"] + grid["w"] <= 24, panel["title"]
        cells = itertools.product(range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"]))
        for cell in cells:
            assert cell not in taken, f"{panel['title']} lies on {taken.get(cell)}"
            taken[cell] = panel["title"]


def test_every_query_keeps_to_the_chosen_cluster() -> None:
    for query in queries():
        selectors = re.findall(r"(?:tunnelswitch_\w+|up|ALERTS)\{[^}]*\}", query.expression)
        names = re.findall(r"tunnelswitch_\w+|\bup\b|\bALERTS\b", query.expression)
        if query.panel != "variable cluster":
            assert len(selectors) == len(names), f"{query.panel}: {query.expression}"
            assert all('cluster="lab"' in selector for selector in selectors), query.panel


@pytest.mark.parametrize(
    "path",
    [
        "grafana/dashboards/tunnelswitch.json",
        str(RULES.relative_to(ROOT)),
        str(RULES_TEST.relative_to(ROOT)),
        "docs/metrics.md",
        "docs/dashboards.md",
        *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs/runbooks").glob("*.md")),
    ],
)
def test_every_metric_that_is_named_exists(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in sample_names()}
    named = set(re.findall(r"\btunnelswitch_(?!lab\b)\w+", text))
    assert named <= sample_names() | families, named - sample_names() - families


def test_the_dashboard_leaves_little_out() -> None:
    asked = " ".join(query.expression for query in queries())
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in sample_names()}
    # Both are shown in a better form: the age at the query's time, the state by name.
    elsewhere = {"tunnelswitch_heartbeat_age_seconds", "tunnelswitch_service_protected", "tunnelswitch_voters"}
    assert {name for name in families if name not in asked} == elsewhere - {"tunnelswitch_voters"}
