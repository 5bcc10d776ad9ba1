"""When a machine's processors have ended: real processes with threads, killed, stopped, and left alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tunnelswitch.replication.colo_processors import ProcessorWatch

# So many small pages take the kernel some 60 ms to free. Two threads play processors, a third one ends when it is told,
# and all of it when nobody is left who could tell.
VICTIM = """
import mmap, os, sys, threading, time
held = mmap.mmap(-1, 200 << 20)
held.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, len(held), 4096):
    held[at] = 1
def run():
    os.write(1, b"%d\\n" % threading.get_native_id())
    while True:
        time.sleep(0.0005)
for _ in range(2):
    threading.Thread(target=run).start()
told = threading.Event()
threading.Thread(target=told.wait).start()
sys.stdin.readline()
told.set()
sys.stdin.readline()
os._exit(1)
"""


class Victim:
    """A process with processors."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", VICTIM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.processors = {int(self.process.stdout.readline()) for _ in range(2)}
        self.pidfd = os.pidfd_open(self.process.pid)

    @property
    def is_gone(self) -> bool:
        """Is it known by its pidfd that the whole process has ended?"""
        return bool(select.select([self.pidfd], [], [], 0)[0])

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.pidfd)


class Told:
    """Notes each call, and whether the whole process was gone by then."""

    def __init__(self, victim: Victim) -> None:
        self.victim_was_gone: list[bool] = []
        self._victim, self._called = victim, asyncio.Event()

    def __call__(self) -> None:
        self.victim_was_gone.append(self._victim.is_gone)
        self._called.set()

    async def wait(self) -> None:
        async with asyncio.timeout(20):
            await self._called.wait()


def watching(victim: Victim, ended: Told) -> ProcessorWatch | None:
    """None where the kernel is too old for it, which it must say then."""
    if tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 9):
        return ProcessorWatch(victim.process.pid, victim.processors, ended)
    with pytest.raises(OSError, match="Invalid argument"):
        ProcessorWatch(victim.process.pid, victim.processors, ended)
    return None


@contextlib.contextmanager
def victims() -> Iterator[Victim]:
    one = Victim()
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def victim() -> Iterator[Victim]:
    with victims() as one:
        yield one


async def test_a_killed_machine_is_known_to_have_ended_before_its_memory_is_gone() -> None:
    for _ in range(5):  # whoever stands still as long as the kernel frees memory comes too late: not each time
        with victims() as victim:
            ended = Told(victim)
            watch = watching(victim, ended)
            victim.process.kill()
            if watch is None:
                return
            await ended.wait()
            await asyncio.sleep(0.2)
            watch.close()
        assert len(ended.victim_was_gone) == 1
        if ended.victim_was_gone == [False]:
            return
    raise AssertionError("it was never known before its memory was gone")


async def test_a_machine_that_stands_still_or_loses_another_thread_has_not_ended(victim: Victim) -> None:
    ended = Told(victim)
    watch = watching(victim, ended)
    victim.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.1)
    victim.process.send_signal(signal.SIGCONT)
    assert victim.process.stdin is not None
    victim.process.stdin.write("end\n")
    victim.process.stdin.flush()
    await asyncio.sleep(0.2)
    assert not ended.victim_was_gone
    victim.process.kill()
    if watch is not None:
        await ended.wait()
        watch.close()


async def test_who_lets_go_is_told_nothing(victim: Victim) -> None:
    ended = Told(victim)
    if (watch := watching(victim, ended)) is not None:
        watch.close()
    victim.process.kill()
    await asyncio.to_thread(victim.process.wait)
    await asyncio.sleep(0.1)
    assert not ended.victim_was_gone


async def test_threads_of_another_process_are_not_watched(victim: Victim) -> None:
    for strange in ({os.getpid()}, {*victim.processors, 1}, set()):
        with pytest.raises(LookupError):
            ProcessorWatch(victim.process.pid, strange, lambda: None)
