"""Runtime options, each in a process of its own: they cannot be taken back."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys

SHOW = """
import ctypes, gc, json, os, platform, re, sys
{before}
from tunnelswitch.adapters.realtime import prepare
refused = prepare(**json.loads(sys.argv[1]))
status = open("/proc/self/status").read()
GETATTR = {{"x86_64": 315, "aarch64": 275, "riscv64": 275}}
def attributes():
    number, found = GETATTR.get(platform.machine()), (ctypes.c_uint32 * 12)()
    if number is not None and ctypes.CDLL(None).syscall(number, 0, found, 48, 0) != 0:
        raise OSError("sched_getattr")
    return {{"nice": ctypes.c_int32(found[4]).value, "slice_us": found[6] // 1000}}
ours = attributes()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.write(writer, json.dumps(attributes()).encode())
    os._exit(os.sched_getscheduler(0))
print(json.dumps({{
    "refused": refused,
    "policy": os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK,
    "priority": os.sched_getparam(0).sched_priority,
    "child_policy": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]),
    **ours,
    "child_slice_us": json.loads(os.read(reader, 100))["slice_us"],
    "locked_kb": int(re.search(r"VmLck:\\s+(\\d+)", status)[1]),
    "slack_ns": int(open("/proc/self/timerslack_ns").read()),
    "frozen": gc.get_freeze_count(),
    "threshold": gc.get_threshold()[0],
}}))
"""
AS_NOBODY = """
import resource
for limit in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_RTPRIO):
    resource.setrlimit(limit, (0, 0))
import tunnelswitch.adapters.realtime
os.setuid(65534)
"""


# A slice of one's own: since Linux 6.12, and the ordinary one is then told as well.
KERNEL = tuple(int(number) for number in re.findall(r"\d+", platform.release())[:2])
SLICES = KERNEL >= (6, 12) and platform.machine() in ("x86_64", "aarch64")


def run(before: str = "", **options: object) -> tuple[dict[str, object], str]:
    command = [sys.executable, "-c", SHOW.format(before=before), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *log, result = done.stdout.splitlines()
    return json.loads(result), "\n".join(log)


def test_what_is_asked_for_is_done() -> None:
    got, log = run(priority=3, lock_memory=True, timer_slack_seconds=1e-6)
    assert got["refused"] == []
    assert (got["policy"], got["priority"], got["child_policy"]) == (1, 3, 0)
    assert got["locked_kb"] > 0  # type: ignore[operator]
    assert got["slack_ns"] in (0, 1000)  # the kernel keeps no slack for a realtime process
    assert got["frozen"] > 1000  # type: ignore[operator]
    assert log == ""


def test_nothing_asked_for_leaves_the_scheduler_alone() -> None:
    got, _ = run()
    assert (got["policy"], got["locked_kb"], got["slack_ns"]) == (0, 0, 1000)
    assert got["threshold"] == 50_000


def test_a_short_slice_is_passed_on_and_leaves_the_nice_value_alone() -> None:
    ordinary, _ = run("os.nice(3)")
    got, log = run("os.nice(3)", slice_seconds=0.00025)
    assert (got["refused"], log, got["policy"], got["nice"]) == ([], "", 0, 3)
    assert got["slice_us"] == got["child_slice_us"] == (250 if SLICES else ordinary["slice_us"])


def test_who_was_put_under_another_policy_stays_there() -> None:
    got, log = run("os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))", slice_seconds=0.0001)
    assert (got["refused"], log, got["policy"]) == ([], "", 3)


def test_what_is_refused_costs_one_line() -> None:
    got, log = run(AS_NOBODY, priority=3, lock_memory=True)
    assert len(got["refused"]) == 2  # type: ignore[arg-type]
    assert "CAP_SYS_NICE" in str(got["refused"])
    assert "CAP_IPC_LOCK" in str(got["refused"])
    assert len(log.splitlines()) == 1
    assert got["policy"] == 0


def test_a_priority_that_does_not_exist_is_refused_not_fatal() -> None:
    got, _ = run(priority=1000)
    assert len(got["refused"]) == 1  # type: ignore[arg-type]
