"""Cells, their order, and what their runs come to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch_lab.bench import report
from tunnelswitch_lab.bench.run import all_systems, chosen_systems, failed
from tunnelswitch_lab.bench.series import PHASES, Cell, budget, cells_of, interleaved, phases, ratios, spread
from tunnelswitch_lab.options import LabError


def cell(label: str, fault: str = "host-loss", *gaps: float) -> Cell:
    (system,) = chosen_systems([label])
    return Cell(system, fault, list(gaps))


def test_every_system_meets_every_fault_that_it_can_notice() -> None:
    cells = {found.name for found in cells_of(all_systems())}
    assert "ovs-bfd-group@10 host-loss" in cells
    assert "ovs-bfd-group@10 service-crash" not in cells
    assert "frr-bfd-bgp@10 service-crash" not in cells
    assert {"tunnelswitch@10 service-crash", "keepalived-script@100 service-crash", "pacemaker@1000 host-loss"} <= cells
    assert len(cells) == 20


def test_runs_are_interleaved() -> None:
    cells = cells_of(chosen_systems(["tunnelswitch@10", "keepalived@10"]))
    order = interleaved(cells, 2)
    assert [(number, one.name) for number, one in order] == [(number, one.name) for number in (1, 2) for one in cells]


def test_an_unknown_system_is_named_with_the_known_ones() -> None:
    with pytest.raises(LabError, match=r"'vrrp@10' is not known: tunnelswitch@10, keepalived@10"):
        chosen_systems(["vrrp@10"])


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_median_p95_and_maximum_are_in_order(values: list[float]) -> None:
    found = spread(values)
    assert None not in found.values()
    assert found["median"] <= found["p95"] <= found["max"]  # type: ignore[operator]
    assert found["max"] == pytest.approx(max(values), abs=1e-6)


def test_a_cell_without_a_recovery_has_no_figures_and_keeps_its_failures() -> None:
    failed = cell("keepalived@10")
    failed.problems.append("the other copy never answered")
    told = failed.as_json()
    assert told["gap_seconds"] == {"median": None, "p95": None, "max": None}
    assert (told["runs"], told["failed"]) == (0, 1)
    assert ratios([cell("tunnelswitch@10", "host-loss", 0.04), failed], "tunnelswitch", "keepalived") == []


def test_ratios_are_at_equal_intervals_and_only_one_is_judged() -> None:
    cells = [
        cell("tunnelswitch@10", "host-loss", 0.042),
        cell("keepalived@10", "host-loss", 0.030),
        cell("keepalived@100", "host-loss", 0.3),
        cell("tunnelswitch@10", "service-crash", 0.02),
        cell("keepalived@10", "service-crash", 0.01),
    ]
    found = {
        (r["fault"], r["interval_ms"]): (r["ratio"], r["at_most"]) for r in ratios(cells, "tunnelswitch", "keepalived")
    }
    assert found == {("host-loss", 10): (1.4, 1.5), ("service-crash", 10): (2.0, None)}


def test_what_was_not_measured_is_no_success() -> None:
    ours, peer = cell("tunnelswitch@10", "host-loss", 0.042), cell("keepalived@10", "host-loss", 0.030)

    def verdict(*cells: Cell) -> str | None:
        return failed(report.summarise(cells, [], {}))

    assert verdict(ours, peer) is None
    assert verdict(ours) is None, "nobody asked for the peer"
    assert "1.5" in str(verdict(cell("tunnelswitch@10", "host-loss", 0.06), peer))
    silent = cell("keepalived@10")
    silent.problems.append("the other copy never answered")
    assert verdict(ours, silent) == "keepalived@10 host-loss has no run: the other copy never answered"
    assert verdict(ours, peer, cell("keepalived@1000")) == "keepalived@1000 host-loss has no run: none was begun"
    assert "could not be worked out" in str(verdict(ours, cell("keepalived@10", "host-loss", 0.0)))


def test_the_budget_adds_up_to_the_first_packet() -> None:
    marks = {"verdict": 0.031, "committed": 0.035, "switched": 0.042, "applied": 0.043}
    spent = phases(marks, 0.044)
    assert sum(spent.values()) == pytest.approx(0.044)
    assert list(spent) == list(PHASES)
    assert phases({**marks, "applied": None}, 0.044) == {}
    assert budget([spent, {}])["detect"] == 0.031


def test_results_are_written_for_machines_and_for_people(tmp_path: Path) -> None:
    cells = [cell("tunnelswitch@10", "host-loss", 0.042), cell("ovs-bfd-group@10", "host-loss", 0.03)]
    cells[0].budgets.append(dict.fromkeys(PHASES, 0.001))
    report.write(tmp_path, report.summarise(cells, [], {"cores": 2}))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["cells"][0]["gap_seconds"]["median"] == 0.042
    assert summary["environment"] == {"cores": 2}
    text = (tmp_path / "table.md").read_text()
    assert "| host-loss | ovs-bfd-group | 10 | 1 | 30.0 | 30.0 | 30.0 | 1.40 |" in text
    assert "detect 1.0" in text
    assert "decide which copy serves" in text
