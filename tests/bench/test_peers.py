"""The peers as real programs: their configuration is accepted, and a client's packets follow them over a real fault."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tunnelswitch_lab import netns, procs, teardown
from tunnelswitch_lab.bench.keepalived import configuration, health_script, tracked_file
from tunnelswitch_lab.bench.run import BenchOptions, run_bench
from tunnelswitch_lab.layout import Layout

_OURS = re.compile(r"tsw-(h(\d+))-wan")


async def remove(name: str) -> None:
    await teardown.remove(Layout(name))


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
@pytest.mark.parametrize("by_script", [True, False])
def test_keepalived_accepts_its_configuration(interval_ms: float, by_script: bool, tmp_path: Path) -> None:
    """All but the device, which is in the lab only."""
    config = tmp_path / "keepalived.conf"
    tracking = health_script(["/bin/true", "192.168.77.10"]) if by_script else tracked_file(str(tmp_path / "crashed"))
    config.write_text(configuration(Layout("x").servers[0], interval_ms, tracking))
    command = ["keepalived", "--config-test", "-f", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode in (0, 5), done.stderr
    assert [line for line in done.stderr.splitlines() if "eth0" not in line and "interface" not in line] == []


async def moved(name: str, out: Path, *peers: str) -> set[tuple[str, str]]:
    """Every system and fault over which the client's packets went to the other copy."""
    summary = await run_bench(BenchOptions(out, 1, peers, name, cases=False), lambda line: None)
    assert not {cell["system"]: cell["problems"] for cell in summary["cells"] if cell["problems"]}
    assert all(0 < cell["gap_seconds"]["median"] < 30 for cell in summary["cells"])
    return {(cell["system"], cell["fault"]) for cell in summary["cells"]}


@pytest.mark.lab
@pytest.mark.timeout(120)
async def test_clients_packets_follow_every_peer(name: str, tmp_path: Path) -> None:
    assert await moved(name, tmp_path, "keepalived@10", "keepalived-script@100", "ovs-bfd-group@10") == {
        ("keepalived", "host-loss"),
        ("keepalived", "service-crash"),
        ("keepalived-script", "host-loss"),
        ("keepalived-script", "service-crash"),
        ("ovs-bfd-group", "host-loss"),
    }


@pytest.mark.peers
@pytest.mark.lab
@pytest.mark.timeout(240)
async def test_clients_packets_follow_the_peers_that_need_more_programs(name: str, tmp_path: Path) -> None:
    assert await moved(name, tmp_path, "frr-bfd-bgp@10", "pacemaker@100") == {
        ("frr-bfd-bgp", "host-loss"),
        ("pacemaker", "host-loss"),
        ("pacemaker", "service-crash"),
    }
