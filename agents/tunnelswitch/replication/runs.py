"""One start of the service's process, and the sure knowledge of its end.

A pidfd stays with the process it was opened for, whatever becomes of the number. Between a hook's word and our opening
it the number could have been given away, so the process must have started before the hook ended. Decides nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tunnelswitch.errors import DriverError

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot (proc(5), /proc/PID/stat, field 22).

    Raises:
        OSError: there is no such process.
    """
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    return int(stat.rpartition(b")")[2].split()[19])


def ticks_now() -> int:
    """The present, rounded up, on the clock of `start_ticks`."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS_PER_SECOND) + 1


class WatchedRun:
    """Calls `on_exit(self)` once, from the event loop, when the process has ended.

    Args:
        run: the name that the service gave to this start of its process.
        known_at_ticks: a time at which this process was said to exist.
        started_ticks: its exact start, if the hook gave it.

    Raises:
        DriverError: there is no such process, or it is another one.
    """

    def __init__(
        self,
        pid: int,
        run: str,
        known_at_ticks: int,
        started_ticks: int | None,
        on_exit: Callable[[WatchedRun], None],
    ) -> None:
        self.pid = pid
        self.run = run
        self.ended = asyncio.Event()
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        if pid in (1, os.getpid()):
            raise DriverError(f"run {run} cannot be process {pid}", "let the status hook print the service's own pid")
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise DriverError(f"process {pid} of run {run} cannot be watched: {error.strerror}") from None
        try:
            self.started_ticks = start_ticks(pid)
            if self.started_ticks > known_at_ticks or started_ticks not in (None, self.started_ticks):
                raise DriverError(f"process {pid} is not that of run {run}: its number was used again")
        except (OSError, DriverError) as error:
            os.close(self._pidfd)
            if isinstance(error, OSError):
                raise DriverError(f"process {pid} of run {run} is gone") from None
            raise
        self._loop.add_reader(self._pidfd, self._exited)

    def signal(self, number: int) -> None:
        """Send a signal to exactly this process.

        Raises:
            OSError: it has ended, or is out of our reach.
        """
        if self._pidfd < 0:
            raise ProcessLookupError
        signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Stop watching, silently."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _exited(self) -> None:
        self.close()
        self.ended.set()
        self._on_exit(self)
