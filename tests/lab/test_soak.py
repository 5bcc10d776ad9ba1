"""Soaks: what is made of the agents' metrics, and a short one under each load, on real parts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.soak.report import lines
from tunnelswitch_lab.soak.run import problems
from tunnelswitch_lab.soak.watch import Watch, parse

SECONDS = 8

TEXT = """# HELP tunnelswitch_epoch Epoch
# TYPE tunnelswitch_epoch gauge
tunnelswitch_epoch{group="voip"} 3.0
tunnelswitch_active_site{group="voip",site="primary"} 1.0
tunnelswitch_active_site{group="voip",site="secondary"} 0.0
tunnelswitch_detection_window_seconds{site="primary"} 0.12
tunnelswitch_false_silences_budget_per_day 1.0
tunnelswitch_switches_total{group="voip",reason="suspicion"} 2.0
python_info{version="3"} 1.0
"""


def watched(*texts: str) -> Watch:
    watch = Watch(Layout("lab"))
    for text in texts:
        watch.note("gateway", parse(text), {})
    return watch


def test_the_text_format_is_read() -> None:
    samples = parse(TEXT)
    assert samples["epoch"] == {(("group", "voip"),): 3.0}
    assert samples["false_silences_budget_per_day"] == {(): 1.0}
    assert "python_info" not in samples


def test_a_quiet_soak_has_no_failovers() -> None:
    summary = watched(TEXT, TEXT).summary()
    assert summary["failovers"] == 0
    assert summary["window_seconds_max"] == {"gateway of primary": 0.12}


@pytest.mark.parametrize(
    "after",
    [
        TEXT.replace('reason="suspicion"} 2', 'reason="suspicion"} 3'),
        TEXT.replace('voip"} 3', 'voip"} 4'),
        TEXT.replace("} 1.0", "} x").replace("} 0.0", "} 1.0").replace("} x", "} 0.0"),
    ],
    ids=["a move is counted", "the epoch grew", "another site serves"],
)
def test_a_move_is_a_failover_whoever_saw_what_of_it(after: str) -> None:
    assert watched(TEXT, after).failovers == 1


def test_what_is_not_as_it_must_be_is_said() -> None:
    quiet = {"failovers": 0, "active_sites": ["primary"]}
    noticed = {"active_site": "secondary", "verdict": "suspicion"}
    assert problems(quiet, noticed) == []
    assert "2 false failovers" in problems(quiet | {"failovers": 2}, noticed)[0]
    assert "not noticed" in problems(quiet, noticed | {"active_site": "primary"})[0]
    assert "before the host was lost" in problems(quiet, {"moved_before": "suspicion"})[0]
    assert "no host could be lost" in problems(quiet, {"failed": "why"})[0]


@pytest.mark.lab
@pytest.mark.timeout(150)
@pytest.mark.parametrize("load", ["busy", "loss"])
def test_nothing_moves_under_load_and_a_lost_host_is_noticed(
    load: str, new_name: Callable[[], str], tmp_path: Path
) -> None:
    program = Path(sys.executable).with_name("tunnelswitch-lab")
    command = [program, "soak", "--load", load, "--minutes", f"{SECONDS / 60}", "--out", tmp_path, "--name", new_name()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=140, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())
    assert summary["failovers"] == 0
    assert summary["problems"] == []
    assert summary["looks"] > 1
    assert summary["host_loss"]["active_site"] == "secondary"
    assert "\n".join(lines(summary, tmp_path)) in done.stdout
    if load == "loss":
        ways = summary["load"]["relay"]["ways"]
        for site in ("primary", "secondary", "gateway"):
            out = ways[f"from {site}"]
            assert 0.02 < out["lost"] / (out["lost"] + out["carried"]) < 0.08
            assert ways[f"to {site}"]["lost"] == 0
