"""Many services lose their site at once, on real switches and a real bus, in the short form."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]


def test_all_services_of_all_groups_move_and_groups_share_a_transaction(
    new_name: Callable[[], str], tmp_path: Path
) -> None:
    program = Path(sys.executable).with_name("tunnelswitch-lab")
    sizes = ["--services", "60", "--gateways", "1", "--detect", "100x3"]
    done = subprocess.run(
        [program, "growth", *sizes, "--out", str(tmp_path), "--name", new_name()],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["problems"] == []
    (row,) = summary["services"]
    assert (row["services"], row["groups"], row["tunnels"]) == (60, 3, "shared")
    assert row["last_tunnel_seconds"] > 0
    assert 1 <= row["ovsdb_commits"] <= 3
    assert "| 60 | 3 | shared |" in (tmp_path / "table.md").read_text()


def test_more_services_than_a_gateway_takes_are_refused(
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    refused = command("growth", "--services", "1001")
    assert refused.returncode == 2
    assert "--services '1001': write numbers from 1 to 1000" in refused.stderr
