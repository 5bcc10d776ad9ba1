"""A whole series in a real lab: agents, switches, bus and service, one fault, and tshark's opinion of the capture."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunnelswitch_lab import teardown
from tunnelswitch_lab.experiment import run_experiment
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.measure.tshark import rtp_streams
from tunnelswitch_lab.options import CHECKPOINT_INTERVALS_MS, WORKLOADS, LabError, LabOptions, RunOptions
from tunnelswitch_lab.recording import SERVICE


def lab(workload: str = "process") -> LabOptions:
    interval_ms = CHECKPOINT_INTERVALS_MS[workload]
    return LabOptions(f"x{os.getpid()}", 0.02, 3, workload=workload, checkpoint_interval_ms=interval_ms)


@pytest.mark.lab
@pytest.mark.timeout(300)
@pytest.mark.parametrize("workload", WORKLOADS)
async def test_a_crashed_service_comes_back_elsewhere_and_all_figures_agree(workload: str, tmp_path: Path) -> None:
    options = RunOptions(lab=lab(workload), fault="service-crash", out=tmp_path)
    said: list[str] = []
    summary = await run_experiment(options, said.append)
    [run] = summary["runs"]
    assert run["checks"] == []
    assert (run["verdict"], run["active_site"], run["gateway_tunnels"]) == ("proof", "secondary", ["t3-pbx"])
    assert set(run["client_packets_by_copy"]) == {"primary", "secondary"}
    assert 0 < run["marks"]["verdict"] < run["marks"]["first_packet"] < 10
    [oracle] = [s for s in rtp_streams(tmp_path / "client.pcap", SERVICE[1]) if s.source == SERVICE]
    assert oracle.lost == run["lost_packets"]
    assert oracle.max_delta_seconds == pytest.approx(run["max_gap_seconds"], abs=2e-6)
    assert oracle.max_jitter_seconds == pytest.approx(run["jitter_max_seconds"], abs=2e-6)
    assert all((tmp_path / name).stat().st_size for name in ("summary.json", "report.html", "events.jsonl"))
    assert any("without service" in line for line in said)
    assert not teardown.leftovers(Layout(options.lab.name)), "a lab that the series made is gone afterwards"


async def test_an_unwritable_directory_is_said_before_anything_is_built(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    options = RunOptions(lab=lab(), fault="service-crash", out=blocked / "out")
    with pytest.raises(LabError, match="cannot be written"):
        await run_experiment(options)
