"""Processes of a lab: started inside a namespace, known by pid AND start time, killed without mistaking a reused pid.

It neither restarts nor reads the output of anything; who runs what, and why, is the testbed's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunnelswitch_lab.netns import entered

_DEAD_STATES = "ZX"  # proc_pid_stat(5)

# Three sites share the cores of one machine. First comes what each would have before all else: switch, bus, hypervisor;
# then the agents; behind them whatever else runs here.
FURNITURE_NICE, AGENTS_NICE = -10, -5


@dataclass(frozen=True)
class Proc:
    """A process that the lab started, with all that it takes to start it again.

    `start_ticks` is field 22 of /proc/PID/stat; (pid, start_ticks) never repeats.
    """

    name: str
    site: str
    namespace: str
    pid: int
    start_ticks: int
    log: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    nice: int = 0

    @property
    def alive(self) -> bool:
        """Whether it still runs. Reaps it if it is our own child that has ended."""
        reap(self.pid)
        return start_ticks(self.pid) == self.start_ticks

    def signal(self, number: int) -> bool:
        """Send a signal; False if the process has gone."""
        with contextlib.suppress(ProcessLookupError), pidfd(self.pid) as descriptor:
            if self.alive:
                signal.pidfd_send_signal(descriptor, number)
                return True
        return False


def start(
    namespace: str,
    command: Sequence[str],
    *,
    name: str,
    site: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    nice: int = 0,
) -> Proc:
    """Start a command inside a namespace, in a session of its own, output appended to `log`.

    It is born inside: there is no moment at which a search of the namespace would miss it. A `nice` value other than 0
    holds among the sessions of the machine, too. Raises OSError if the command cannot be started.
    """
    argv = ["nice", "-n", str(nice), *command] if nice else list(command)
    redirect = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    with entered(namespace):
        pid = os.posix_spawnp(
            argv[0],
            argv,
            {**os.environ, **(environment or {})},
            file_actions=redirect,
            setsid=True,
            setsigdef=[signal.SIGPIPE],
        )
    if nice:
        _prefer(pid, nice)
    ticks = start_ticks(pid) or 0
    return Proc(name, site, namespace, pid, ticks, str(log), tuple(command), dict(environment or {}), nice)


def _prefer(pid: int, nice: int) -> None:
    """Give a process' session this nice value against other sessions (sched(7), autogroup).

    The nice value of a process counts inside its session only then, and each of ours has one of its own.
    """
    with contextlib.suppress(OSError):  # no such feature, or the process has ended
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none alive with this pid."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0].decode() in _DEAD_STATES else int(fields[19])


def reap(pid: int) -> None:
    """Collect a child that has ended; somebody else's process is left alone."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@contextlib.contextmanager
def pidfd(pid: int) -> Iterator[int]:
    """A descriptor for exactly this process. Raises ProcessLookupError if there is none."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def kill_all(descriptors: Iterable[int]) -> None:
    """SIGKILL by pidfd, those that have gone excepted. Closes every descriptor."""
    for descriptor in descriptors:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


def open_all(pids: Iterable[int]) -> list[int]:
    """Pidfds of those that are still there, for `kill_all`."""
    descriptors = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptors.append(os.pidfd_open(pid))
    return descriptors


async def wait_gone(pids: Iterable[int], timeout_seconds: float) -> set[int]:
    """Wait until none of these is alive; returns those that still are at the deadline."""
    left = {pid: start_ticks(pid) for pid in pids}
    deadline = time.monotonic() + timeout_seconds
    while True:
        for pid in list(left):
            reap(pid)
            ticks = start_ticks(pid)
            if ticks is None or ticks != left[pid]:
                del left[pid]
        if not left or time.monotonic() > deadline:
            return set(left)
        await asyncio.sleep(0.01)


async def check_output(command: Sequence[str], timeout_seconds: float, namespace: str | None = None) -> str:
    """Run a tool to its end and return what it printed.

    Raises RuntimeError with the last line of its complaint, or TimeoutError.
    """
    argv = ["nsenter", f"--net=/run/netns/{namespace}", *command] if namespace else list(command)
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            output, complaint = await process.communicate()
    except TimeoutError:
        raise TimeoutError(f"{command[0]}: not done after {timeout_seconds:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = (complaint or output).decode(errors="replace").strip().splitlines() or ["no message"]
        raise RuntimeError(f"{command[0]} failed: {said[-1]}")
    return output.decode(errors="replace")
