"""The domains of one stand-in Xen host: a file that several processes read and change."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def changed(host: Path) -> Iterator[dict[str, Any]]:
    """The table, alone; what is done to it is written. Readers see the old one or the new one."""
    path = host / "domains.json"
    with (host / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = path.read_text() if path.exists() else ""
        table = json.loads(before) if before else {"last": 0, "domains": {}}
        yield table
        after = json.dumps(table)
        if after != before:
            new = path.with_suffix(".new")
            new.write_text(after)
            new.replace(path)
