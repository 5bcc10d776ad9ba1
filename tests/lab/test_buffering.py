"""Output that waits for checkpoints, with a real machine: what clients were told survives a crash, or does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunnelswitch_lab.costs import Cell, CostOptions, chosen, run_costs, table
from tunnelswitch_lab.options import LabError, LabOptions

pytestmark = pytest.mark.lab

SECONDS = 2.0


async def test_held_output_survives_a_crash_and_real_time_passes_at_once(tmp_path: Path) -> None:
    lab = LabOptions(f"b{os.getpid()}", 0.03, 3, workload="vm")
    summary = await run_costs(CostOptions(lab, chosen(("realtime@300",)), tmp_path, 1, SECONDS), lambda step: None)
    assert summary["problems"] == []
    (row,) = summary["cells"]
    assert row["active_site"] == "secondary"
    assert row["probe_rollback_packets"] == 0  # held: nothing that the probe saw is forgotten
    assert row["call_rtt_median_seconds"] < row["probe_rtt_median_seconds"]  # the call does not wait
    assert "| realtime | 300 |" in table(summary["cells"])


def test_cells_are_named_by_buffering_and_interval() -> None:
    assert chosen(("full@100",)) == (Cell("full", 100),)
    assert len(chosen(())) == 15
    for wrong in ("full", "half@100", "full@5"):
        with pytest.raises(LabError):
            chosen((wrong,))
