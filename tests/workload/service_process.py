"""Real copies of the RTP service on loopback addresses, and a client that asks them; for the tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunnelswitch_lab.workload import hooks_directory
from tunnelswitch_lab.workload.packets import (
    ProbeReply,
    Reply,
    RtpPacket,
    build_probe,
    build_rtp,
    parse_probe_reply,
    parse_rtp_reply,
)


def free_port() -> int:
    """A TCP port that is free on loopback now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float = 20.0, what: str = "condition") -> None:
    """Wait for a condition with a generous bound."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


class Copy:
    """One copy of the service: a real process with addresses of its own on loopback."""

    def __init__(self, directory: Path, site: str, address: str, bind: int, peer: int) -> None:
        self.site, self.address = site, address
        self.directory = directory / site
        self.directory.mkdir(parents=True, exist_ok=True)
        self.rtp_port, self.probe_port = 5004, 5006
        self.bind, self.peer = bind, peer
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.notify.bind(str(self.directory / "notify.sock"))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, role: str, interval_ms: float = 10) -> None:
        """Start the process and wait for its identity."""
        (self.directory / "service.identity").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            f"{sys.executable} -m tunnelswitch_lab.workload.rtp_service --site {self.site} --role {role} "
            f"--listen {self.address} --rtp-port {self.rtp_port} --probe-port {self.probe_port} "
            f"--replicate-bind 127.0.0.1:{self.bind} --replicate-peer 127.0.0.1:{self.peer} "
            f"--checkpoint-interval-ms {interval_ms} --state-dir {self.directory} "
            f"--notify {self.directory / 'notify.sock'}".split()
        )
        wait_until((self.directory / "service.identity").exists, what=f"identity of {self.site}")

    @property
    def pid(self) -> int:
        """Process id of the running copy."""
        assert self.process is not None
        return self.process.pid

    def status(self) -> dict[str, Any]:
        """What status.json says."""
        content: dict[str, Any] = json.loads((self.directory / "status.json").read_text(encoding="utf-8"))
        return content

    def hook(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run one of the commands on this copy's state directory."""
        environment = {**os.environ, "TUNNELSWITCH_SERVICE": "pbx", "TUNNELSWITCH_SITE": self.site}
        command = [str(hooks_directory() / name), str(self.directory)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)

    def events(self) -> list[dict[str, Any]]:
        """All datagrams that came in since the last call."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(json.loads(self.notify.recv(65536)))
        return found

    def commit(self) -> None:
        """Wait until the peer holds all that was answered before this call. Of the commits told now the first may be an
        old one that was told late, and the second may have begun before."""
        self.events()
        told: list[dict[str, Any]] = []

        def are_enough() -> bool:
            told.extend(event for event in self.events() if event["kind"] == "checkpoint")
            return len(told) >= 3

        wait_until(are_enough, what="three commits")

    def roles_until_active(self) -> list[dict[str, Any]]:
        """The role events up to the one that says active; the kernel queues few, so later ones may wait."""
        found: list[dict[str, Any]] = []

        def is_active() -> bool:
            found.extend(event for event in self.events() if event["kind"] == "role")
            return bool(found) and found[-1]["role"] == "active"

        wait_until(is_active, what="the promotion is reported")
        return found

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the process, if it runs."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.send_signal(number)
            self.process.wait(timeout=20)
            self.process = None

    def close(self) -> None:
        """Leave nothing behind."""
        self.kill()
        self.notify.close()


class Asker:
    """A client that asks one packet at a time."""

    def __init__(self, ssrc: int = 7) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.ssrc, self.sequence = ssrc, 0

    def send_raw(self, copy: Copy, data: bytes, port: int | None = None) -> None:
        """Send any bytes to the copy's RTP port, or another one."""
        with contextlib.suppress(ConnectionRefusedError):
            self.socket.sendto(data, (copy.address, port or copy.rtp_port))

    def ask(self, copy: Copy, seconds: float = 20.0) -> tuple[RtpPacket, Reply] | None:
        """One RTP packet and its answer; None when none comes."""
        self.sequence += 1
        packet = RtpPacket(self.sequence & 0xFFFF, self.sequence * 160, self.ssrc, 0)
        self.send_raw(copy, build_rtp(packet))
        self.socket.settimeout(seconds)
        try:
            answer = parse_rtp_reply(self.socket.recv(2048))
        except (TimeoutError, ConnectionRefusedError):
            return None
        assert answer is not None
        assert answer[0] == packet
        return answer

    def probe(self, copy: Copy) -> ProbeReply:
        """One probe and its answer."""
        self.send_raw(copy, build_probe(99, time.time_ns()), copy.probe_port)
        self.socket.settimeout(20)
        answer = parse_probe_reply(self.socket.recv(2048))
        assert answer is not None
        return answer

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
