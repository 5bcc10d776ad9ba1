"""Real servers for these tests: each in a directory of its own, ovs-vswitchd in a nameless network namespace.

Every process dies with the test process (PR_SET_PDEATHSIG), and a nameless namespace dies with its process, so a
killed test run leaves nothing behind. It does NOT touch the machine's own Open vSwitch.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
START_DEADLINE_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Runs in the child before exec."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Polls, for starting processes only."""
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen within {START_DEADLINE_SECONDS} s"
        time.sleep(0.01)


async def eventually(true: Callable[[], bool]) -> None:
    """Returns once `true()`; fails after a generous time."""
    async with asyncio.timeout(START_DEADLINE_SECONDS):
        while not true():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.005)


class Process:
    """A child that can be stopped, killed and waited for."""

    def __init__(self, directory: Path, *command: str) -> None:
        self.log = (directory / f"{Path(command[0]).name}-{time.monotonic_ns()}.out").open("wb")
        environment = {**os.environ, "OVS_RUNDIR": str(directory), "OVS_LOGDIR": str(directory)}
        self.child = subprocess.Popen(
            command,
            stdout=self.log,
            stderr=self.log,
            env=environment,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.child.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and gone when this returns; may be called again."""
        self.child.kill()
        self.child.wait(timeout=START_DEADLINE_SECONDS)
        self.log.close()


class Ovs:
    """One ovsdb-server, and one ovs-vswitchd if `start_switch` is called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "db.sock"
        self.remote = f"unix:{self.socket}"
        self.database = directory / "conf.db"
        self.server: Process | None = None
        self.switch: Process | None = None
        self.create()

    def create(self, schema: Path = SCHEMA) -> None:
        """A new, empty database in place of any other."""
        self.database.unlink(missing_ok=True)
        subprocess.run(["ovsdb-tool", "create", str(self.database), str(schema)], check=True, capture_output=True)

    def start(self, *options: str, init: bool = True) -> None:
        """Starts ovsdb-server; returns when it accepts connections."""
        self.socket.unlink(missing_ok=True)
        control = self.directory / "dbctl"
        self.server = Process(
            self.directory,
            "ovsdb-server",
            str(self.database),
            f"--remote=p{self.remote}",
            f"--unixctl={control}",
            "--no-chdir",
            "-vconsole:off",
            *options,
        )
        wait_until(self._accepts, "ovsdb-server accepting")
        if init:
            self.vsctl("init")

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def start_switch(self) -> None:
        """Starts ovs-vswitchd in a network namespace of its own; returns when it has read the database."""
        self.switch = Process(
            self.directory,
            "unshare",
            "--net",
            "ovs-vswitchd",
            self.remote,
            f"--unixctl={self.directory / 'switchctl'}",
            "--no-chdir",
            "--disable-system",
            "-vconsole:off",
        )
        wait_until(lambda: self.vsctl("get", "open_vswitch", ".", "cur_cfg") != "", "ovs-vswitchd")
        wait_until((self.directory / "switchctl").exists, "ovs-vswitchd's control socket")
        self.vsctl("add-br", "ready", "--", "set", "bridge", "ready", "datapath_type=netdev", wait=True)

    def vsctl(self, *arguments: str, wait: bool = False) -> str:
        """An independent writer and reader."""
        command = ["ovs-vsctl", f"--db={self.remote}", "--timeout=15", *([] if wait else ["--no-wait"]), *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=die_with_parent)
        return done.stdout.strip()

    def external_id(self, key: str) -> str:
        """A key of the Open_vSwitch row, "" if absent, as ovs-vsctl sees it."""
        return self.vsctl("--if-exists", "get", "open_vswitch", ".", f"external_ids:{key}").strip('"')

    def kill_server(self) -> None:
        """SIGKILL to ovsdb-server."""
        assert self.server is not None
        self.server.kill()

    def stop(self) -> None:
        """Everything, ovs-vswitchd first."""
        if self.switch is not None and self.switch.child.poll() is None:
            self.switch.signal(signal.SIGCONT)
            control = str(self.directory / "switchctl")
            subprocess.run(
                ["ovs-appctl", "-T", "5", "-t", control, "exit", "--cleanup"], check=False, capture_output=True
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.switch.child.wait(timeout=5)
        for process in (self.switch, self.server):
            if process is not None:
                process.kill()
