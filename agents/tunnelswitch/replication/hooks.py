"""Running one operator's command so that nothing it does can hold or crash the agent.

The child gets a process group of its own, no input, and pipes of which we take a bounded amount. It stays in our
session: in one of its own the kernel would weigh it as a stranger on a busy machine (autogroup, sched(7)), and vfork(2)
has us wait until it has been on the processor for the first time. Its end is known from a
pidfd (pidfd_open(2)), not from the end of its output: a grandchild that keeps the pipe open holds nobody. asyncio's own
subprocesses wait for the pipes, and need a thread per child on Python 3.11. Does not know what the commands mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO

OUTPUT_MAX_BYTES = 64 * 1024
KILLED_SECONDS = 1.0
_READ_BYTES = 16 * 1024
_SHOWN_CHARACTERS = 200
_LOGGED_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class HookResult:
    """What became of a command.

    Attributes:
        problem: empty if it ended with status 0 in time.
        output: what it printed on standard output; `complaint`: on standard error.
        killed: it did not end by itself, so what it would have said is not known.
    """

    problem: str
    output: bytes
    seconds: float
    complaint: bytes = b""
    killed: bool = False

    @property
    def said(self) -> str:
        """The end of all that it printed, fit for a line in a log."""
        text = b" | ".join(part.strip() for part in (self.output, self.complaint) if part.strip())
        return _printable(text.decode("utf-8", "replace").replace("\n", " / "))[-_LOGGED_CHARACTERS:]


class RunningHook:
    """A command under way; `ended` is done when its process is gone. Must be made in a running event loop.

    Raises:
        OSError: it cannot be started (errno says why).
        ValueError: a string in it cannot be passed to a program.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._killed_for = ""
        self._process = subprocess.Popen(
            list(command),
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
            process_group=0,
        )
        self._pipes: dict[IO[bytes], bytearray] = {}
        self.ended: asyncio.Future[None] = self._loop.create_future()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None  # both are PIPE
            os.set_blocking(pipe.fileno(), False)
            self._pipes[pipe] = bytearray()
            self._loop.add_reader(pipe.fileno(), self._read, pipe)
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            self.kill("no descriptor is left to watch it")
            self._process.wait()  # SIGKILL was sent just now
            self._close_pipes()
            raise
        self._loop.add_reader(self._pidfd, self._end)

    def kill(self, reason: str) -> None:
        """End the command and everything it started in its process group; `reason` becomes the result's problem."""
        if self._process.returncode is None:
            self._killed_for = self._killed_for or reason
            with contextlib.suppress(OSError):  # a command that changed its user may be out of our reach
                os.killpg(self._process.pid, signal.SIGKILL)  # the group exists until we reap its leader

    async def result(self, limit_seconds: float) -> HookResult:
        """Wait for the end, and bring it about at the limit."""
        try:
            await asyncio.wait({self.ended}, timeout=limit_seconds)
            if not self.ended.done():
                self.kill(f"did not end within {limit_seconds:.3g} s")
                await asyncio.wait({self.ended}, timeout=KILLED_SECONDS)
        finally:
            self.kill("was given up")
        seconds = self._loop.time() - self._started_at
        output, complaint = (bytes(data) for data in self._pipes.values())
        return HookResult(self._problem(complaint), output, seconds, complaint, bool(self._killed_for))

    def _problem(self, complaint: bytes) -> str:
        if self._killed_for:
            return self._killed_for
        code = self._process.returncode
        if code == 0:
            return ""
        how = f"ended with status {code}" if code > 0 else f"was killed by signal {-code}"
        lines = complaint.decode("utf-8", "replace").strip().splitlines()
        said = _printable(lines[-1])[:_SHOWN_CHARACTERS] if lines else ""
        return f"{how}: {said}" if said else how

    def _read(self, pipe: IO[bytes]) -> bool:
        """Take what is there, once. Returns whether there may be more."""
        data = self._pipes[pipe]
        try:
            chunk = os.read(pipe.fileno(), min(_READ_BYTES, OUTPUT_MAX_BYTES + 1 - len(data)))
        except BlockingIOError:
            return False
        data += chunk
        if len(data) > OUTPUT_MAX_BYTES:
            self._loop.remove_reader(pipe.fileno())
            self.kill(f"printed more than {OUTPUT_MAX_BYTES} bytes")
            return False
        if not chunk:
            self._loop.remove_reader(pipe.fileno())
        return bool(chunk)

    def _end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        for pipe, data in self._pipes.items():
            while len(data) <= OUTPUT_MAX_BYTES and self._read(pipe):
                pass
        self._process.wait()  # returns at once: the pidfd says that it has ended
        self._close_pipes()
        if not self.ended.done():
            self.ended.set_result(None)

    def _close_pipes(self) -> None:
        for pipe in self._pipes:
            self._loop.remove_reader(pipe.fileno())
            pipe.close()


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


class Hooks:
    """Runs the commands of one service at one site, and ends them all when the agent stops.

    `{site}` in an argument becomes the site's name. No command may take longer than `limit_seconds`.
    """

    def __init__(self, service: str, site: str, limit_seconds: float) -> None:
        self.limit_seconds = limit_seconds
        self._site = site
        self._environment = {
            "TUNNELSWITCH_SERVICE": service,
            "TUNNELSWITCH_SITE": site,
            "TUNNELSWITCH_EPOCH": "",
            "TUNNELSWITCH_REASON": "",
        }
        self._running: dict[RunningHook, str] = {}

    async def run(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], limit_seconds: float
    ) -> HookResult:
        """Run a command to its end. `name` is the first word of a problem; nothing is raised."""
        arguments = [part.replace("{site}", self._site) for part in command]
        try:
            hook = RunningHook(arguments, {**self._environment, **environment})
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return HookResult(f"{name} cannot be started: {arguments[0]}: {reason}", b"", 0.0)
        self._running[hook] = name
        hook.ended.add_done_callback(lambda _: self._running.pop(hook))
        result = await hook.result(max(0.0, min(limit_seconds, self.limit_seconds)))
        problem = f"{name} {result.problem}" if result.problem else ""
        return replace(result, problem=problem)

    def kill(self, name: str, reason: str) -> None:
        """End the commands of this name that are under way."""
        for hook, running in self._running.items():
            if running == name:
                hook.kill(reason)

    async def close(self) -> None:
        """End all commands, and wait within bounds until they are gone."""
        for hook in tuple(self._running):
            hook.kill("was ended: the agent stops")
            await asyncio.wait({hook.ended}, timeout=KILLED_SECONDS)
