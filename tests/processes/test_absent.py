"""A process whose surroundings are not there: it says so in one line, stays alive, is not ready, and ends politely."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_ovs import Ovs

EXAMPLE = Path(__file__).parents[2] / "deploy" / "example.toml"
PROGRAM = Path(sys.executable).with_name("tunnelswitch")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def deployment(tmp_path: Path) -> tuple[Path, int]:
    """The example, on loopback, with nothing behind any of its addresses; and the port of the first agent's metrics."""
    text = EXAMPLE.read_text()
    port = free_port()
    nats = free_port()
    for number in (1, 2, 3):
        text = text.replace(f"nats://10.9.0.{number}:4222", f"nats://127.0.0.1:{nats}")
    text = text.replace('"10.9.0.1:9101"', f'"127.0.0.1:{port}"').replace('"10.9.0.3:9102"', f'"127.0.0.1:{port}"')
    text = text.replace("/run/openvswitch", str(tmp_path)).replace("/run/pbx", str(tmp_path))
    path = tmp_path / "deployment.toml"
    path.write_text(text)
    return path, port


@pytest.fixture
def start(deployment: tuple[Path, int], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("wb") as log:
            command = [PROGRAM, *arguments, "--config", deployment[0]]
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def health(port: int) -> tuple[int, dict[str, object]]:
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            time.sleep(0.1)
    raise AssertionError("no answer from /healthz")


def reasons_with(port: int, wanted: str) -> str:
    """What /healthz lacks, as soon as `wanted` is in it."""
    for _ in range(100):
        status, answer = health(port)
        reasons = " ".join(map(str, answer["reasons"]))  # type: ignore[call-overload]
        if wanted in reasons:
            assert status == 503
            return reasons
        time.sleep(0.1)
    raise AssertionError(f"{wanted!r} is not among: {reasons}")


def metrics(port: int) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text.splitlines()


@pytest.mark.parametrize("arguments", [("agent", "--site", "primary"), ("switcher", "--site", "gateway")])
def test_without_nats_and_ovsdb_a_process_waits_and_says_what_is_missing(
    deployment: tuple[Path, int],
    start: Callable[..., subprocess.Popen[bytes]],
    arguments: tuple[str, ...],
    tmp_path: Path,
) -> None:
    if arguments[0] == "switcher":
        text = (
            deployment[0]
            .read_text()
            .replace(f'agent_metrics = "127.0.0.1:{deployment[1]}"', 'agent_metrics = "127.0.0.1:1"')
        )
        deployment[0].write_text(text)
    process = start(*arguments)
    status, answer = health(deployment[1])
    for _ in range(200):  # both have been tried, whatever the machine does
        if (tmp_path / "log").read_text().count('"level": "error"') >= 2:
            break
        time.sleep(0.1)
    time.sleep(4.0)
    assert process.poll() is None
    assert status == 503
    reasons = " ".join(map(str, answer["reasons"]))  # type: ignore[call-overload]
    assert "NATS" in reasons
    assert "db.sock" in reasons
    process.terminate()
    assert process.wait(timeout=30) == 0
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    complaints = [json.loads(line) for line in log.splitlines() if '"level": "error"' in line]
    said = [line["event"].split(",")[0] for line in complaints]
    assert set(said) == {"OVSDB does not answer", "no NATS server answers"}
    assert len(said) <= 3, "once per connection, not once per attempt"
    assert all(line["remedy"] for line in complaints)


@pytest.mark.ovs
def test_a_probe_mesh_that_cannot_be_made_is_a_reason_not_to_be_ready(
    deployment: tuple[Path, int], start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "primary").mkdir()
    ovs = Ovs(tmp_path / "primary")
    try:
        ovs.start()
        ovs.vsctl("add-br", "br-svc", "--", "add-br", "br-probe")
        start("agent", "--site", "primary")
        assert "bridge br-probe at site primary is not ours" in reasons_with(deployment[1], "probe mesh: ")
        assert "tunnelswitch_probe_mesh_wrong 1.0" in metrics(deployment[1])
    finally:
        ovs.kill_server()


def test_a_client_port_that_is_gone_is_a_reason_not_to_be_ready(
    deployment: tuple[Path, int], start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    path, port = deployment
    text = path.read_text().replace(f'switcher_metrics = "127.0.0.1:{port}"', 'switcher_metrics = "127.0.0.1:1"')
    text = text.replace("10.9.0.3:9101", f"127.0.0.1:{port}").replace(f"127.0.0.1:{port}", "127.0.0.1:2", 1)
    path.write_text(text.replace('"client0"', '"nothing0"'))
    start("agent", "--site", "gateway")
    assert "client packets on nothing0 are not watched: " in reasons_with(port, "nothing0")
    assert "tunnelswitch_client_port_unwatched 1.0" in metrics(port)


@pytest.mark.parametrize("command", [("init",), ("recover",), ("drain", "--site", "primary")])
def test_a_command_without_nats_is_one_line(
    deployment: tuple[Path, int],
    start: Callable[..., subprocess.Popen[bytes]],
    command: tuple[str, ...],
    tmp_path: Path,
) -> None:
    process = start(*command)
    assert process.wait(timeout=60) == 1
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("tunnelswitch: no NATS server lets us in (nats://127.0.0.1:")
    assert "Connect call failed" in line
    assert "start nats-server, or correct cluster.nats_urls" in line


def test_status_without_nats_says_so_of_every_group(
    deployment: tuple[Path, int], start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    process = start("status", "--format", "json")
    assert process.wait(timeout=60) == 1
    report = json.loads((tmp_path / "log").read_text())
    assert "no NATS server lets us in (nats://127.0.0.1:" in report["groups"]["voip"]["error"]
    assert len(report["processes"]) == 4
