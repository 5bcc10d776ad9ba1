"""Getting the processor in time: scheduling class, locked memory, few collections, exact timers.

Every option is a wish: what the system refuses costs one warning line, and the agent goes on as it is. Linux only. It
changes this process and what it starts later, nothing else.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable

import structlog

_MCL_CURRENT, _MCL_FUTURE = 1, 2  # mlockall(2)
_PR_SET_TIMERSLACK = 29  # prctl(2)
_GC_THRESHOLD = 50_000

_libc = ctypes.CDLL(None, use_errno=True)
_log = structlog.get_logger("tunnelswitch.realtime")


def prepare(*, priority: int = 0, lock_memory: bool = False, timer_slack_seconds: float = 1e-6) -> tuple[str, ...]:
    """Apply the options of `[runtime]`; call it once everything is imported and built.

    Args:
        priority: 1 to 99: SCHED_FIFO with that priority, sched(7), for the calling thread; 0: the ordinary scheduler
            stays. Threads and processes started later have the ordinary one.
        lock_memory: no page of this process, now or later, is swapped out or faulted in from disk.
        timer_slack_seconds: how late the kernel may fire a timer to save wake-ups (its default is 50 µs).

    Returns:
        One line for each wish that was refused.
    """
    refused: list[str] = []

    def wish(what: str, remedy: str, act: Callable[[], None]) -> None:
        try:
            act()
        except (OSError, ValueError) as error:
            refused.append(f"{what}: {error}; {remedy}")

    # What exists now lives as long as the process: collecting it again and again costs milliseconds.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 100)
    slack_ns = max(1, round(timer_slack_seconds * 1e9))
    wish("timer slack", "timers stay less exact", lambda: _call(_libc.prctl(_PR_SET_TIMERSLACK, slack_ns, 0, 0, 0)))
    if lock_memory:
        wish(
            "lock_memory",
            "give the agent CAP_IPC_LOCK or raise its limit of locked memory (ulimit -l)",
            lambda: _call(_libc.mlockall(_MCL_CURRENT | _MCL_FUTURE)),
        )
    if priority:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        wish(
            f"realtime_priority {priority}",
            "give the agent CAP_SYS_NICE or an RLIMIT_RTPRIO, or set it to 0",
            lambda: os.sched_setscheduler(0, policy, os.sched_param(priority)),
        )
    if refused:
        _log.warning("runtime options refused; going on without", refused=refused)
    return tuple(refused)


def _call(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
