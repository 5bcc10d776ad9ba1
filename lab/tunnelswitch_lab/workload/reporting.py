"""What the service tells the outside: its pid, its status file, and JSON datagrams.

Reporting never holds the service: files are small and replaced atomically, a datagram that nobody takes is
dropped.
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from pathlib import Path
from typing import Any

# "PID START_TICKS RUN": what the hooks read; a pid that was used again has another start.
IDENTITY_FILE = "service.identity"
PID_FILE = "service.pid"
STATUS_FILE = "status.json"
_MAX_PENDING = 16


def process_start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot (proc(5), field 22); OSError when it is gone."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return int(stat.rpartition(")")[2].split()[19])


class Reporter:
    """Writes the state directory and sends datagrams to the notify socket, if there is one."""

    def __init__(self, directory: Path, notify: Path | None, run: str) -> None:
        self._directory = directory
        self._notify = str(notify) if notify is not None else None
        self._run = run
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._pending: deque[bytes] = deque(maxlen=_MAX_PENDING)
        self._start_ticks = process_start_ticks(os.getpid())
        self.dropped = 0

    def write_pid(self) -> None:
        """Say who we are: done last at start, so that an identity means a service that can be promoted."""
        pid = os.getpid()
        self._replace(IDENTITY_FILE, f"{pid} {self._start_ticks} {self._run}\n")
        self._replace(PID_FILE, f"{pid}\n")

    def write_status(self, role: str, in_sync: bool, sequence: int) -> None:
        """Replace status.json. The hooks look for `"role":"active"` in it, so it has no blanks."""
        status = {
            "pid": os.getpid(),
            "start_ticks": self._start_ticks,
            "run": self._run,
            "role": role,
            "in_sync": in_sync,
            "sequence": sequence,
        }
        self._replace(STATUS_FILE, json.dumps(status, separators=(",", ":")) + "\n")

    def send(self, kind: str, **fields: Any) -> None:
        """Send one event to the notify socket.

        When nobody takes it, a checkpoint is dropped (the next one says more); the last few others wait.
        """
        data = json.dumps({"kind": kind, "run": self._run, **fields}).encode()
        self.flush()
        if kind != "checkpoint":
            self._pending.append(data)
            self.flush()
        elif self._pending or not self._push(data):
            self.dropped += 1

    def flush(self) -> None:
        """Try again to send the events that wait."""
        while self._pending and self._push(self._pending[0]):
            self._pending.popleft()

    def _push(self, data: bytes) -> bool:
        if self._notify is None:
            return True
        try:
            self._socket.sendto(data, self._notify)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the datagram socket; the files stay, as they say who was here."""
        self._socket.close()

    def _replace(self, name: str, text: str) -> None:
        temporary = self._directory / f".{name}.{os.getpid()}"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self._directory / name)
