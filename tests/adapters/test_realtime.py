"""Runtime options, each in a process of its own: they cannot be taken back."""

from __future__ import annotations

import json
import subprocess
import sys

SHOW = """
import gc, json, os, re, sys
{before}
from tunnelswitch.adapters.realtime import prepare
refused = prepare(**json.loads(sys.argv[1]))
status = open("/proc/self/status").read()
child = os.fork()
if child == 0:
    os._exit(os.sched_getscheduler(0))
print(json.dumps({{
    "refused": refused,
    "policy": os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK,
    "priority": os.sched_getparam(0).sched_priority,
    "child_policy": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]),
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
