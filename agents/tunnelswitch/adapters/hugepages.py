"""Huge pages for the memory of another process, asked for from outside (process_madvise(2), MADV_COLLAPSE: Linux 6.1).

What is made of few pages is quickly given back: the kernel frees 96 MiB in about 24 ms as small pages, and in less than
one as huge ones. It works whatever /sys/kernel/mm/transparent_hugepage says, and what it cannot do it leaves as it is.
It needs CAP_SYS_NICE, and of the process what ptrace(2) calls read access.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunnelswitch.errors import DriverError

PAGE_BYTES = 2 << 20
AREA_BYTES_MIN = 16 << 20
_REST = 3  # three times as long as a page took, so that a big memory costs a quarter of a core at most
_PROCESS_MADVISE = 440  # the same on every architecture
_MADV_COLLAPSE = 25
_AREA = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0 *$")
_libc = ctypes.CDLL(None, use_errno=True)


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@dataclass(frozen=True, slots=True)
class Area:
    """Private memory that belongs to no file, in bytes. `huge_bytes` of it are in huge pages."""

    start: int
    length: int
    resident_bytes: int
    huge_bytes: int


async def collapse(pid: int) -> int:
    """Put the large areas of a process that are in use into huge pages, one page after the other, at leisure.

    Returns:
        How many bytes were moved.

    Raises:
        DriverError: the process is gone, the kernel knows no such call, or it is not allowed.
    """
    moved = 0
    try:
        descriptor = os.pidfd_open(pid)
        try:
            for address in await asyncio.to_thread(_addresses, pid):
                began_at = time.perf_counter()
                moved += await asyncio.to_thread(_collapse, descriptor, address)
                await asyncio.sleep(_REST * (time.perf_counter() - began_at))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DriverError(
            f"memory of process {pid} stays in small pages: {error.strerror}",
            "give the agent CAP_SYS_NICE and CAP_SYS_PTRACE and Linux 6.1; without, a promotion takes longer",
        ) from None
    return moved


def areas(smaps: str) -> Iterator[Area]:
    """The private anonymous areas in the text of /proc/PID/smaps, proc(5)."""
    place, sizes = None, {"Rss": 0, "AnonHugePages": 0}
    for line in [*smaps.splitlines(), "0-0 end"]:
        name, colon, value = line.partition(":")
        if colon and name in sizes:
            sizes[name] = int(value.split()[0]) << 10
        elif "-" in line.partition(" ")[0]:
            if place is not None:
                start, end = (int(number, 16) for number in place.groups())
                yield Area(start, end - start, sizes["Rss"], sizes["AnonHugePages"])
            place, sizes = _AREA.match(line), {"Rss": 0, "AnonHugePages": 0}


def _addresses(pid: int) -> list[int]:
    """Where huge pages could be and are not. An area that is mostly empty is left alone: it would be filled."""
    found: list[int] = []
    for area in areas(Path(f"/proc/{pid}/smaps").read_text(encoding="ascii", errors="replace")):
        small = area.resident_bytes - area.huge_bytes
        if area.length >= AREA_BYTES_MIN and area.resident_bytes > area.length // 2 and small >= PAGE_BYTES:
            first = -(-area.start // PAGE_BYTES) * PAGE_BYTES
            found += range(first, area.start + area.length - PAGE_BYTES + 1, PAGE_BYTES)
    return found


def _collapse(descriptor: int, address: int) -> int:
    piece = _Piece(address, PAGE_BYTES)
    result = _libc.syscall(_PROCESS_MADVISE, descriptor, ctypes.byref(piece), 1, _MADV_COLLAPSE, 0)
    if result < 0:
        code = ctypes.get_errno()
        if code in (errno.EPERM, errno.ESRCH, errno.ENOSYS):  # no other page would fare better
            raise OSError(code, os.strerror(code))
        return 0
    return int(result)
