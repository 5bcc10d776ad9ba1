"""What processes cost: processor time over a stretch of time, and memory. From proc(5)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class LoadMeter:
    """Counts from its construction on. `processes` are process ids by name; those that have gone are left out."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        self._processes = dict(processes)
        self._started = time.monotonic()
        self._before = {name: _ticks(pid) for name, pid in processes.items()}

    def read(self) -> dict[str, dict[str, float]]:
        """Share of one core since the start (1.0 is a whole one) and resident memory now, by process name."""
        elapsed = max(time.monotonic() - self._started, 1e-6)
        loads = {}
        for name, pid in self._processes.items():
            before, after = self._before[name], _ticks(pid)
            if before is not None and after is not None:
                loads[name] = {
                    "core_share": round((after - before) / _TICKS_PER_SECOND / elapsed, 4),
                    "resident_mib": round(_resident_bytes(pid) / 2**20, 1),
                }
        return loads


def _ticks(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[11]) + int(fields[12])


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
