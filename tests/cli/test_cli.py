"""The installed command, as an operator meets it: one line per error, and the exit status that says which kind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunnelswitch.cli.status import StatusReport, is_well, print_json, print_pretty

EXAMPLE = Path(__file__).parents[2] / "deploy/example.toml"
COMMAND = (sys.executable, "-c", "from tunnelswitch.cli.main import run; run()")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return _run([*COMMAND, *arguments], {"PATH": "/usr/bin:/bin", **environment})


def _run(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)


def test_version() -> None:
    done = run("version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tunnelswitch ")


def test_validate() -> None:
    done = run("validate", "--config", str(EXAMPLE))
    assert (done.returncode, done.stderr) == (0, "")
    assert "cluster lab, sites: 3, groups: 1, services: 1; a site counts as silent after 60 ms" in done.stdout


def test_validate_shows_everything_that_is_wrong(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    text = EXAMPLE.read_text(encoding="utf-8").replace("t3_key = 3", "t3_key = 2")
    bad.write_text(text.replace('standby = "secondary"', 'standby = "x"'), encoding="utf-8")
    done = run("validate", "--config", str(bad))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        'tunnelswitch: groups.voip.standby: names no site: "x"; sites: gateway, primary, secondary',
        "tunnelswitch: services.pbx.t3_key: 2 is also services.pbx.t2_key; give every tunnel a GRE key of its own",
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("agent", "--site", "primry"), "--site: 'primry' is no site; did you mean primary?"),
        (("switcher", "--site", "primary"), "sites.primary.kind: is server, and a switcher runs at gateways"),
    ],
)
def test_the_wrong_site(arguments: tuple[str, ...], expected: str) -> None:
    done = run(*arguments, "--config", str(EXAMPLE))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"tunnelswitch: {expected}")


@pytest.mark.parametrize("command", ["agent", "switcher", "init", "validate", "status"])
def test_no_file(command: str) -> None:
    site = ("--site", "primary") if command in ("agent", "switcher") else ()
    done = run(command, "--config", "/nonexistent.toml", *site)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("tunnelswitch: /nonexistent.toml: cannot be read: No such file or directory; give")


@pytest.mark.parametrize("arguments", [("bogus",), ("validate",), ("status", "--config", "x", "-f", "xml")])
def test_wrong_calls(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_wrong_log_level() -> None:
    done = run("agent", "--site", "primary", "--config", str(EXAMPLE), TUNNELSWITCH_LOG_LEVEL="loud")
    assert done.returncode == 1
    assert done.stderr.startswith("tunnelswitch: TUNNELSWITCH_LOG_LEVEL is 'loud'; use one of")


def test_a_bug_of_ours_is_one_line_too(tmp_path: Path) -> None:
    script = (
        "import sys; from tunnelswitch.cli import main\n"
        "def boom(path): raise ZeroDivisionError('x')\n"
        "main.load = boom; sys.argv = ['tunnelswitch', 'validate', '--config', 'f']; main.run()"
    )
    done = _run([sys.executable, "-c", script])
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("tunnelswitch: internal error: ZeroDivisionError('x'); run again with")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_before_the_event_loop_takes_them(number: signal.Signals, tmp_path: Path) -> None:
    script = (
        "import sys, time; from tunnelswitch.cli import main\n"
        "def slow(path): print('loading', flush=True); time.sleep(60)\n"
        "main.load = slow; sys.argv = ['tunnelswitch', 'agent', '--config', 'f', '--site', 's']; main.run()"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"loading\n"
        process.send_signal(number)
        _, complaint = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, complaint) == (0, b"")


def test_commands_import_little() -> None:
    script = (
        "import sys; import tunnelswitch.cli.main\n"
        "print([m for m in ('nats', 'ovs', 'ovsdbapp', 'pyroute2', 'structlog', 'prometheus_client', 'rich') "
        "if m in sys.modules])"
    )
    done = _run([sys.executable, "-c", script])
    assert done.stdout == "[]\n"


REPORT: StatusReport = {
    "cluster": "lab",
    "groups": {
        "voip": {
            "epoch": 3,
            "stamp": "3.1-gateway.a1.2",
            "active": "secondary",
            "previous": "primary",
            "in_sync": True,
            "reason": "suspicion",
            "decided_at": 1_700_000_000.25,
            "drained": ["primary"],
            "paused": "alice@host: a switch is replaced",
            "paused_at": 1_700_000_100.0,
        },
        "data": {"error": "the epoch store did not answer"},
    },
    "copies": [
        {
            "service": "pbx",
            "site": "secondary",
            "role": "active",
            "state": "syncing",
            "why": "the standby is given the whole state",
            "progress": 0.43,
            "checkpoint_sequence": 17,
            "checkpoint_age_seconds": 0.0301,
            "gate_open": True,
        },
        {"service": "pbx", "site": "primary", "error": "its agent is not heard"},
    ],
    "processes": [
        {"site": "primary", "process": "agent", "address": "10.9.0.1:9101", "ready": True, "reasons": []},
        {"site": "gateway", "process": "agent", "address": "10.9.0.3:9101", "ready": False, "reasons": ["no NATS"]},
        {"site": "gateway", "process": "switcher", "address": "10.9.0.3:9102", "ready": False, "error": "re\nfused"},
    ],
}


def test_status_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    print_pretty(REPORT)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "voip 3.1-gateway.a1.2 secondary in sync suspicion 2023-11-14 22:13:20.250+00:00" in lines
    assert "data - - - the epoch store did not answer -" in lines
    assert "voip: automatic moves are paused since 2023-11-14 22:15:00+00:00, alice@host: a switch is replaced" in lines
    assert "voip: drained: primary" in lines
    assert "pbx secondary active syncing 43% 17, 0.03 s old the standby is given the whole state" in lines
    assert "pbx primary - - - its agent is not heard" in lines
    assert "primary agent 10.9.0.1:9101 ready" in lines
    assert "gateway agent 10.9.0.3:9101 not ready no NATS" in lines
    assert "gateway switcher 10.9.0.3:9102 no answer re?fused" in lines


def test_status_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(REPORT)
    assert json.loads(capsys.readouterr().out) == REPORT


def test_what_is_well() -> None:
    assert not is_well(REPORT)
    well: StatusReport = {
        "cluster": "lab",
        "groups": {"voip": REPORT["groups"]["voip"]},
        "copies": REPORT["copies"],
        "processes": REPORT["processes"][:1],
    }
    assert is_well(well)
