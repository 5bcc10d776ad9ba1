"""The peers as real programs: their configuration is accepted, and a client's packets follow them over a real fault."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tunnelswitch_lab import netns, procs, teardown
from tunnelswitch_lab.bench.keepalived import configuration
from tunnelswitch_lab.bench.run import BenchOptions, run_bench
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.state import locked

_OURS = re.compile(r"tsw-(h(\d+))-wan")


async def remove(name: str) -> None:
    layout = Layout(name)
    if teardown.leftovers(layout):
        with locked(layout):
            await teardown.demolish(layout)


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """A lab's name; also what a killed test run left is removed."""
    for namespace in netns.existing("tsw-h"):
        found = _OURS.fullmatch(namespace)
        if found and procs.start_ticks(int(found[2])) is None:
            await remove(found[1])
    made = f"h{os.getpid()}"
    yield made
    await remove(made)


@pytest.mark.parametrize("interval_ms", [10, 100, 1000])
def test_keepalived_accepts_its_configuration(interval_ms: float, tmp_path: Path) -> None:
    """All but the device, which is in the lab only."""
    config = tmp_path / "keepalived.conf"
    config.write_text(configuration(Layout("x").servers[0], interval_ms, str(tmp_path / "crashed")))
    command = ["keepalived", "--config-test", "-f", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode in (0, 5), done.stderr
    assert [line for line in done.stderr.splitlines() if "eth0" not in line and "interface" not in line] == []


@pytest.mark.lab
@pytest.mark.timeout(120)
async def test_clients_packets_follow_every_peer(name: str, tmp_path: Path) -> None:
    peers = ("keepalived@10", "ovs-bfd-group@10")
    summary = await run_bench(BenchOptions(tmp_path, 1, peers, name), lambda line: None)
    failed = {cell["system"]: cell["problems"] for cell in summary["cells"] if cell["problems"]}
    assert not failed
    assert {(cell["system"], cell["fault"]) for cell in summary["cells"]} == {
        ("keepalived", "host-loss"),
        ("keepalived", "service-crash"),
        ("ovs-bfd-group", "host-loss"),
    }
    assert all(0 < cell["gap_seconds"]["median"] < 5 for cell in summary["cells"])
