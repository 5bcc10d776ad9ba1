"""Loss, repair and failback in a row with nobody at the keyboard, by the command that shows it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]


def test_a_lost_host_comes_back_and_the_group_goes_back_to_it(new_name: Callable[[], str], tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("tunnelswitch-lab")
    done = subprocess.run(
        [program, "cycles", "--runs", "1", "--stable", "1", "--out", str(tmp_path), "--name", new_name()],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["problems"] == []
    (cycle,) = summary["cycles"]
    assert (cycle["failover"]["reason"], cycle["failback"]["reason"]) == ("suspicion", "operator")
    assert cycle["failback"]["state_rollback_packets"] == 0
    assert cycle["failback"]["epoch"] == cycle["failover"]["epoch"] + 1 == 3
    assert summary["gateway_tunnels"] == ["t2-pbx"]


def test_a_fault_that_nothing_repairs_is_said(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    refused = command("cycles", "--fault", "link-cut:T1")
    assert refused.returncode == 2
    assert "comes back by nothing that is known here: host-loss or service-crash" in refused.stderr
