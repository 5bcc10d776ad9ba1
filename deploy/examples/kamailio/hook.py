#!/usr/bin/python3 -IS
"""hook.py VERB SETTINGS: what tunnelswitch asks of one Kamailio: promote, fence, status or health.

Status 0 is success; otherwise the last line on standard error says what is wrong. docs/howto-kamailio.md tells why it
is done like this. Standard library only, so that the system's own Python will do.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ANSWER_SECONDS = 0.4  # one question, repeated once after half of it; `status` asks two of them
EQUAL_SECONDS = 0.3  # a registration is on its way to the peer for a few milliseconds
GONE_SECONDS = 1.5
DATAGRAM_BYTES = 4096


class HookError(Exception):
    """What is wrong, in one line."""


class Copy:
    """The Kamailio of this site, found by what `run` wrote down. `pid` is its main process, as the host counts.

    Raises HookError if there is none.
    """

    def __init__(self, settings: dict[str, str]) -> None:
        self.settings = settings
        self.state = Path(settings["STATE"])
        try:
            supervisor, started = (self.state / "supervisor").read_text().split()
            if start_ticks(int(supervisor)) != int(started):
                raise HookError(f"no Kamailio runs: process {supervisor} of {self.state}/supervisor is gone")
            children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
            self.pid = int(children[0])
            self.started = start_ticks(self.pid)
            self.pidfd = os.pidfd_open(self.pid)
            if start_ticks(self.pid) != self.started:
                raise HookError("Kamailio ended while it was looked at")
        except (OSError, ValueError, IndexError) as error:
            raise HookError(f"no Kamailio runs here: {error}") from None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        self.run = f"{boot}.{self.pid}.{self.started}"

    def kill(self) -> None:
        """Kill the main process, and return when it is gone; its workers are then gone, too (see `run`)."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        if not select.select([self.pidfd], [], [], GONE_SECONDS)[0]:
            raise HookError(f"process {self.pid} is still there {GONE_SECONDS} s after SIGKILL")

    def control(self, *command: str) -> None:
        """One command over Kamailio's control socket."""
        argv = ["/usr/sbin/kamcmd", "-s", f"unix:{self.state}/control", *command]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=1, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HookError(f"kamcmd: {error}") from None
        if done.returncode or "error" in done.stdout + done.stderr:
            raise HookError(f"kamcmd {command[0]}: {(done.stderr or done.stdout).strip() or 'failed'}")

    def remembered(self, name: str) -> dict[str, int]:
        """What this run wrote down under `name`; nothing of another run."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.state / name).read_text())
            if found.pop("run") == self.run:
                return found
        return {}

    def remember(self, name: str, **what: int) -> None:
        temporary = self.state / f"{name}.new"
        temporary.write_text(json.dumps({"run": self.run, **what}))
        temporary.replace(self.state / name)

    def ask(self, whose: str) -> tuple[bool, int] | None:
        """Is the copy at T1_ADDRESS or T1_PEER active, and how many contacts does it hold? None: it is mute."""
        answer = options(self.settings[whose], int(self.settings["T1_PORT"]), self.settings["T1_ADDRESS"])
        words = next((line.split()[1:] for line in answer.splitlines() if line.startswith("X-Copy:")), [])
        return (words[0] == "1", int(words[1])) if len(words) == 2 else None

    def compare(self) -> tuple[tuple[bool, int] | None, tuple[bool, int] | None]:
        """Our word and the peer's; asked again for a while if the numbers differ."""
        until = time.monotonic() + EQUAL_SECONDS
        while True:
            mine = self.ask("T1_ADDRESS")
            peer = self.ask("T1_PEER") if mine else None
            if not mine or not peer or mine[1] == peer[1] or time.monotonic() > until:
                return mine, peer
            time.sleep(0.05)


def start_ticks(pid: int) -> int:
    """When a process started (proc(5), /proc/PID/stat, field 22); 0 if it is dead."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    return 0


def options(host: str, port: int, source: str) -> str:
    """The answer to a SIP OPTIONS (RFC 3261, section 11), or nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((source, 0))
            sock.connect((host, port))
            me = f"{source}:{sock.getsockname()[1]}"
            mark = os.urandom(8).hex()
            request = (
                f"OPTIONS sip:{host}:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{mark}\r\n"
                f"From: <sip:hook@{me}>;tag={mark}\r\nTo: <sip:{host}:{port}>\r\nCall-ID: {mark}\r\n"
                "CSeq: 1 OPTIONS\r\nMax-Forwards: 1\r\nContent-Length: 0\r\n\r\n"
            ).encode()
            sock.settimeout(ANSWER_SECONDS / 2)
            for _ in range(2):
                sock.send(request)
                with contextlib.suppress(TimeoutError):
                    answer = sock.recv(DATAGRAM_BYTES).decode("utf-8", "replace")
                    if answer.startswith("SIP/2.0 200 ") and mark in answer:
                        return answer
        except OSError:  # refused, unreachable, no such address: no answer, all the same
            pass
    return ""


def promote(copy: Copy) -> None:
    """Every copy can serve, so there is nothing to start: see that it answers, and have it know."""
    if not options(copy.settings["SERVICE_ADDRESS"], 5060, copy.settings["SERVICE_ADDRESS"]):
        raise HookError(f"process {copy.pid} does not answer OPTIONS, so it is not promoted")
    copy.control("pv.shvSet", "active", "int", "1")


def status(copy: Copy) -> None:
    """In sync: both hold equally many contacts. A standby whose active is mute keeps what it had."""
    mine, peer = copy.compare()
    if mine is None:
        raise HookError(f"process {copy.pid} does not answer on T1")
    active = mine[0]
    in_sync = peer is not None and mine[1] == peer[1]
    if not active:
        if peer is None:
            in_sync = bool(copy.remembered("synced"))
        elif copy.remembered("health").get("unheard", 0) >= int(copy.settings["FAILURES"]):
            in_sync = False  # it may have missed something: `health` has it start anew
        if in_sync and not copy.remembered("synced"):
            copy.remember("synced", yes=1)
    role = "active" if active else "standby"
    said = {"pid": copy.pid, "run": copy.run, "role": role, "in_sync": in_sync, "start_ticks": copy.started}
    print(json.dumps(said))


def health(copy: Copy) -> None:
    """What must not go on is ended here: the end of the process is a proof, this hook's failure is none."""
    was = copy.remembered("health")
    limit = int(copy.settings["FAILURES"])
    mute = 0 if options(copy.settings["SERVICE_ADDRESS"], 5060, copy.settings["SERVICE_ADDRESS"]) else 1
    unanswered = was.get("unanswered", 0) + 1 if mute else 0
    mine, peer = (None, None) if mute else copy.compare()
    unheard, apart = was.get("unheard", 0), was.get("apart", 0)
    behind = False
    if mine and not mine[0]:
        if peer is None:
            unheard += 1
        elif peer[0]:
            apart = apart + 1 if mine[1] != peer[1] else 0
            behind = apart >= limit or unheard >= limit
            unheard = 0
    copy.remember("health", unanswered=unanswered, unheard=unheard, apart=apart)
    if unanswered >= limit:
        copy.kill()
        raise HookError(f"OPTIONS unanswered {unanswered} times in a row: process {copy.pid} was ended")
    if behind:
        copy.kill()
        raise HookError(f"this standby missed registrations: process {copy.pid} was ended, to start with all of them")
    if unanswered:
        raise HookError(f"OPTIONS unanswered {unanswered} times in a row, of {limit}")


def main() -> None:
    verbs = {"promote": promote, "fence": Copy.kill, "status": status, "health": health}
    if len(sys.argv) != 3 or sys.argv[1] not in verbs:
        raise SystemExit("usage: hook.py promote|fence|status|health SETTINGS")
    try:
        lines = Path(sys.argv[2]).read_text().splitlines()
        settings = {"FAILURES": "3", **dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")}
        try:
            copy = Copy(settings)
        except HookError:
            if sys.argv[1] == "fence":
                return  # gone already
            raise
        verbs[sys.argv[1]](copy)
    except (HookError, OSError, KeyError, ValueError) as error:
        raise SystemExit(
            f"{sys.argv[1]}: {error!r}" if isinstance(error, KeyError) else f"{sys.argv[1]}: {error}"
        ) from None


main()
