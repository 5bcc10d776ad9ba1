"""The scripts that the images run: health as the process says it, and the role that the record gives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPTS = CHECKOUT / "deploy" / "compose"
START_SECONDS = 20.0


@contextlib.contextmanager
def answering(status: int) -> Iterator[str]:
    """HOST:PORT of a server that answers everything with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def is_healthy(endpoint: str) -> bool:
    done = subprocess.run([SCRIPTS / "healthy", endpoint], capture_output=True, timeout=20, check=False)
    return done.returncode == 0


def test_healthy_is_what_answers_200() -> None:
    with answering(200) as endpoint:
        assert is_healthy(endpoint)
    with answering(503) as endpoint:
        assert not is_healthy(endpoint)
    assert not is_healthy(endpoint), "nobody listens there any more"


@pytest.mark.parametrize(("site", "role"), [("primary", "standby"), ("secondary", "active")])
def test_a_copy_starts_in_the_role_that_the_record_gives_its_site(tmp_path: Path, site: str, role: str) -> None:
    record = json.dumps({"groups": {"voip": {"active": "secondary"}}})
    environment = _with_command(tmp_path, f"echo '{record}'; exit 1")  # not all is well, and yet there is a record
    state = tmp_path / "state"
    ports = _free_ports(4)
    options = ["--listen=127.0.0.1", f"--rtp-port={ports[0]}", f"--probe-port={ports[1]}", f"--state-dir={state}"]
    options += [f"--replicate-bind=127.0.0.1:{ports[2]}", f"--replicate-peer=127.0.0.1:{ports[3]}"]
    service = subprocess.Popen([sys.executable, SCRIPTS / "rtp-service", site, *options], env=environment)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (state / "service.identity").exists() and service.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert json.loads((state / "status.json").read_text())["role"] == role
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(START_SECONDS) == 0


@pytest.mark.parametrize("name", ["compose/switch", "compose/healthy", "compose/rtp-service", "compose-test"])
def test_scripts_can_be_run(name: str) -> None:
    script = CHECKOUT / "deploy" / name
    assert os.access(script, os.X_OK)
    text = script.read_text()
    interpreter = text.splitlines()[0].removeprefix("#!").split()[-1]
    if interpreter == "python3":
        compile(text, name, "exec")
    else:
        subprocess.run([interpreter, "-n", script], check=True, timeout=20)


def _with_command(directory: Path, text: str) -> dict[str, str]:
    """An environment in which `tunnelswitch` is this script."""
    commands = directory / "bin"
    commands.mkdir()
    command = commands / "tunnelswitch"
    command.write_text(f"#!/bin/sh\n{text}\n")
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]
        for sock in taken:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in taken]
