"""What a lab has written down about itself: its options and every process it started.

lab.json serves `status` and `attach`, and is the second leg of `down` (the first is what runs inside the namespaces).
A lock keeps two commands from working on one lab at once; it falls when its holder dies, however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.options import LabError, LabOptions
from tunnelswitch_lab.procs import Proc


class State:
    """The record of one lab, in memory and on disk."""

    def __init__(self, options: LabOptions) -> None:
        self.options = options
        self.layout = Layout(options.name)
        self.created_at = time.time()
        self.ready = False
        self.procs: list[Proc] = []

    @property
    def path(self) -> Path:
        """Where the record is kept."""
        return self.layout.directory / "lab.json"

    @classmethod
    def load(cls, name: str) -> State:
        """Read the record of a lab. Raises LabError if there is none, or it cannot be read."""
        path = Layout(name).directory / "lab.json"
        try:
            data = json.loads(path.read_text())
            state = cls(LabOptions(**data["options"]))
            state.created_at, state.ready = data["created_at"], data["ready"]
            state.procs = [Proc(**{**entry, "command": tuple(entry["command"])}) for entry in data["procs"]]
        except FileNotFoundError:
            raise LabError(f"there is no lab {name!r}: start one with tunnelswitch-lab up --name {name}") from None
        except (ValueError, KeyError, TypeError):
            raise LabError(f"{path} is damaged: remove the lab with tunnelswitch-lab down --name {name}") from None
        return state

    def save(self) -> None:
        """Write the record, whole or not at all."""
        data: dict[str, Any] = {
            "name": self.options.name,
            "created_at": self.created_at,
            "ready": self.ready,
            "options": asdict(self.options),
            "procs": [asdict(proc) for proc in self.procs],
        }
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(data, indent=1))
        temporary.replace(self.path)

    def add(self, proc: Proc) -> None:
        """Write down a process that was just started; its dead predecessor of the same name is forgotten."""
        self.procs = [known for known in self.procs if known.name != proc.name or known.alive]
        self.procs.append(proc)
        self.save()

    def forget(self, proc: Proc) -> None:
        """Strike out a process that was stopped on purpose."""
        self.procs.remove(proc)
        self.save()

    def find(self, name: str) -> Proc | None:
        """The newest process of this name, alive or not."""
        return next((proc for proc in reversed(self.procs) if proc.name == name), None)


@contextlib.contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Hold the lab for a change. Raises LabError if another command does. Makes the run directory if need be."""
    layout.directory.mkdir(parents=True, exist_ok=True)
    path = layout.directory / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            still_there = os.fstat(descriptor).st_nlink > 0
        except BlockingIOError:
            still_there = False
        if not still_there:
            raise LabError(f"another command is working on lab {layout.name!r}: wait for it to end, then try again")
        yield
    finally:
        os.close(descriptor)


def erase(layout: Layout) -> None:
    """Remove the run directory, and the parent when this was the last lab."""
    shutil.rmtree(layout.directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        layout.directory.parent.rmdir()
