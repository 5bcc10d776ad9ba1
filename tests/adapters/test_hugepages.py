"""Huge pages from outside: a real process, whose memory the kernel then describes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunnelswitch.adapters import hugepages
from tunnelswitch.errors import DriverError

MIB = 1 << 20
# Memory in use that nobody has asked huge pages for, and a part that is mostly empty.
HOLDER = """
import mmap, sys
used, empty = (mmap.mmap(-1, 32 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2))
used.madvise(mmap.MADV_NOHUGEPAGE)
used.write(b"x" * len(used))
used.madvise(mmap.MADV_HUGEPAGE)
empty[0] = 1
print("ready", flush=True)
sys.stdin.read()
print(used[:] == b"x" * len(used), flush=True)
"""


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def areas_of(pid: int) -> list[hugepages.Area]:
    return list(hugepages.areas(Path(f"/proc/{pid}/smaps").read_text()))


async def test_memory_in_use_moves_and_keeps_what_it_holds(holder: subprocess.Popen[str]) -> None:
    before = sum(area.resident_bytes for area in areas_of(holder.pid))
    moved = await hugepages.collapse(holder.pid)
    after = areas_of(holder.pid)
    assert moved >= 28 * MIB
    assert sum(area.huge_bytes for area in after) >= 28 * MIB
    assert sum(area.resident_bytes for area in after) < before + 16 * MIB, "what was empty stays empty"
    assert await hugepages.collapse(holder.pid) == 0, "nothing is left to do"
    said, _ = holder.communicate("", timeout=10)
    assert said == "True\n"


async def test_a_process_that_is_gone_is_an_error_with_a_remedy(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    with pytest.raises(DriverError, match="stays in small pages"):
        await hugepages.collapse(holder.pid)


def test_what_has_a_file_or_runs_code_is_no_area() -> None:
    text = """\
7f0000000000-7f0006000000 rw-p 00000000 00:00 0
Size:              98304 kB
Rss:               98300 kB
AnonHugePages:      2048 kB
7f0010000000-7f0014000000 rwxp 00000000 00:00 0
Rss:               65536 kB
7f0020000000-7f0024000000 rw-p 00000000 08:01 42                         /lib/x.so
Rss:               65536 kB
7f0030000000-7f0034000000 rw-s 00000000 00:00 0
Rss:               65536 kB
"""
    assert list(hugepages.areas(text)) == [hugepages.Area(0x7F0000000000, 96 * MIB, 98300 << 10, 2 * MIB)]
