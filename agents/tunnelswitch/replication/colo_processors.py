"""From when on a machine's processors run nothing any more: the earliest fact that proves its end.

A killed process has ended, by its pidfd, once the kernel has taken its memory apart: some 10 ms for a small machine,
and seconds for a large one in small pages. One of its threads does that, and all the others are gone before. So
threads are watched (PIDFD_THREAD of pidfd_open(2), Linux 6.9), and when one ends, those of the machine's processors are
looked at: a task that exits (PF_EXITING) never returns to its program.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from pathlib import Path

THREADS_MAX = 64
# Until the kernel has interrupted the last processor; what takes longer is known from the process' own end.
_LOOK_SECONDS, _LOOKS_MAX = 0.001, 50
_PIDFD_THREAD = os.O_EXCL
_PF_EXITING = 0x4
_FLAGS = 6  # of the fields behind the name: proc_pid_stat(5), field 9


class ProcessorWatch:
    """Calls `ended()` once, from the event loop, when all `processors` have ended or never run again.

    Args:
        pid: the process.
        processors: ids of the threads that run the machine's processors.

    Raises:
        OSError: the kernel cannot watch threads, or there is no such process.
        LookupError: these are no threads of this process, as we see it.
    """

    def __init__(self, pid: int, processors: Collection[int], ended: Callable[[], None]) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._processors = tuple(sorted(processors))
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._looks = 0
        self._again: asyncio.TimerHandle | None = None
        there = {int(task.name) for task in self._tasks.iterdir()}
        if not self._processors or not there.issuperset(self._processors):
            raise LookupError(f"process {pid} has no threads {', '.join(map(str, self._processors)) or 'to watch'}")
        # The first thread's end is told with the whole process'.
        others = sorted(there.difference(self._processors, {pid}))
        self._pidfds: set[int] = set()
        try:
            for thread in (*self._processors, *others)[:THREADS_MAX]:
                self._open(thread)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Stop watching, silently."""
        for pidfd in tuple(self._pidfds):
            self._forget(pidfd)
        if self._again is not None:
            self._again.cancel()
        self._processors = ()

    def _open(self, thread: int) -> None:
        try:
            pidfd = os.pidfd_open(thread, _PIDFD_THREAD)
        except ProcessLookupError:
            return  # one that came and went
        self._pidfds.add(pidfd)
        self._loop.add_reader(pidfd, self._thread_ended, pidfd)

    def _forget(self, pidfd: int) -> None:
        self._pidfds.discard(pidfd)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)

    def _thread_ended(self, pidfd: int) -> None:
        self._forget(pidfd)
        self._looks = _LOOKS_MAX
        self._look()

    def _look(self) -> None:
        if not self._processors:
            return
        if all(self._never_runs(thread) for thread in self._processors):
            self.close()
            self._ended()
        elif self._looks > 0:
            self._looks -= 1
            if self._again is not None:
                self._again.cancel()
            self._again = self._loop.call_later(_LOOK_SECONDS, self._look)

    def _never_runs(self, thread: int) -> bool:
        try:
            stat = (self._tasks / str(thread) / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return True  # it is gone
        return bool(int(stat.rpartition(")")[2].split()[_FLAGS]) & _PF_EXITING)
