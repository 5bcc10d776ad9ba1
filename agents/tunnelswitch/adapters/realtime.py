"""Getting the processor in time: time slice, scheduling class, locked memory, few collections, exact timers.

Every option is a wish: what the system refuses costs one warning line, and the agent goes on as it is. Linux only. It
changes this process and what it starts later, nothing else.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from collections.abc import Callable

import structlog

_MCL_CURRENT, _MCL_FUTURE = 1, 2  # mlockall(2)
_PR_SET_TIMERSLACK = 29  # prctl(2)
_GC_THRESHOLD = 50_000
_SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}  # the C library has no function for it

_libc = ctypes.CDLL(None, use_errno=True)
_log = structlog.get_logger("tunnelswitch.realtime")


class _Attributes(ctypes.Structure):
    """struct sched_attr in its first version, sched_setattr(2)."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime_ns", ctypes.c_uint64),
        ("deadline_ns", ctypes.c_uint64),
        ("period_ns", ctypes.c_uint64),
    )


def prepare(
    *, slice_seconds: float = 0.0, priority: int = 0, lock_memory: bool = False, timer_slack_seconds: float = 1e-6
) -> tuple[str, ...]:
    """Apply the options of `[runtime]`; call it once everything is imported and built.

    Args:
        slice_seconds: the calling thread's time slice under the ordinary scheduler, and that of all it starts later.
            It changes nobody's share: who asks for little at a time is let in sooner. The kernel keeps it between 0.1
            and 100 ms, and before Linux 6.12 it takes no notice. 0: the slice stays as it is.
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
    if slice_seconds and os.sched_getscheduler(0) == os.SCHED_OTHER:
        wish(
            f"slice_seconds {slice_seconds:g}",
            "let seccomp pass sched_setattr, or set it to 0",
            lambda: _call(_set_slice(slice_seconds)),
        )
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


def _set_slice(seconds: float) -> int:
    number = _SYS_SCHED_SETATTR.get(platform.machine())
    if number is None:  # as on an older kernel: nothing to tell an operator about
        return 0
    nice = os.getpriority(os.PRIO_PROCESS, 0)  # it is set along with the slice
    attributes = _Attributes(ctypes.sizeof(_Attributes), os.SCHED_OTHER, 0, nice, 0, round(seconds * 1e9), 0, 0)
    return int(_libc.syscall(number, 0, ctypes.byref(attributes), 0))


def _call(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
