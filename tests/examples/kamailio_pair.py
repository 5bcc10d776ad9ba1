"""Two real Kamailios in two namespaces, run, asked and ended by the files of deploy/examples/kamailio alone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunnelswitch.config import Exec, load
from tunnelswitch.core.actions import Fence, Promote
from tunnelswitch.core.events import ServiceSeen
from tunnelswitch.core.facts import Reason
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.replication.exec import ExecDriver
from tunnelswitch_lab import netns

EXAMPLE = Path(__file__).parents[2] / "deploy/examples/kamailio"
INSTALLED, SETTINGS = "/usr/local/lib/tunnelswitch-kamailio", "/etc/kamailio/tunnelswitch.env"
SITES = ("primary", "secondary")
SERVICE, PHONE = "192.168.77.10", "192.168.77.1"
STAMP = Stamp(7, "gw.a1.3")
WAIT_SECONDS = 30.0
ANSWER_SECONDS = 15.0


class Copy:
    """One site: a namespace with the service's address, a Kamailio in it, and the driver beside it."""

    def __init__(self, site: str, directory: Path) -> None:
        self.site = site
        self.namespace = f"kam-{os.getpid()}-{site}"
        self.settings = directory / f"{site}.env"
        self.state = directory / site
        self.events: list[Any] = []
        self.counts: Counter[str] = Counter()
        text = (EXAMPLE / f"{site}.env").read_text(encoding="utf-8")
        settings = dict(line.split("=") for line in text.splitlines() if line[0] != "#") | {"STATE": str(self.state)}
        self.t1_address = settings["T1_ADDRESS"]
        self.settings.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")
        self.driver = ExecDriver("pbx", self._options(), site, self.events.append, self._count)
        self.supervisor: subprocess.Popen[bytes] | None = None
        self.log = directory / f"{site}.log"

    def _options(self) -> Exec:
        """The deployment file's own commands, with the places of this test."""
        table = load(EXAMPLE / "deployment.toml").services["pbx"].exec
        assert table is not None
        named = {name: self._here(getattr(table, name)) for name in ("promote", "fence", "status", "health")}
        return Exec(**named, timeout_seconds=table.timeout_seconds)

    def _here(self, command: tuple[str, ...]) -> tuple[str, ...]:
        places = {INSTALLED: str(EXAMPLE), SETTINGS: str(self.settings)}
        words = []
        for word in command:
            for place, here in places.items():
                word = word.replace(place, here)  # noqa: PLW2901
            words.append(word)
        return ("/usr/bin/nsenter", f"--net=/run/netns/{self.namespace}", *words)

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1

    def start(self) -> None:
        """What the unit does."""
        if self.supervisor is not None:
            self.supervisor.wait(WAIT_SECONDS)
        with self.log.open("ab") as log:
            command = self._here((f"{INSTALLED}/run", SETTINGS))
            self.supervisor = subprocess.Popen(command, stdout=log, stderr=log)

    def processes(self) -> set[int]:
        """Kamailio's main process and its workers."""
        return {pid for pid in netns.processes_inside([self.namespace]) if _is_kamailio(pid)}

    def signal(self, number: int) -> None:
        """To each of them."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    @property
    def main(self) -> int:
        """The process that the driver watches."""
        run = self.seen.run.split(".")
        return int(run[1])

    @property
    def seen(self) -> ServiceSeen:
        return next(event for event in reversed(self.events) if isinstance(event, ServiceSeen))

    def is_seen(self, role: str, *, in_sync: bool) -> bool:
        return any(isinstance(event, ServiceSeen) for event in self.events) and (
            (self.seen.role, self.seen.in_sync) == (role, in_sync)
        )

    def phone(self, port: int = 0) -> socket.socket:
        """A phone at the clients' side of this copy."""
        with netns.entered(self.namespace):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((PHONE, port))
        sock.settimeout(ANSWER_SECONDS)
        return sock

    def promote(self) -> Promote:
        return Promote("pbx", self.seen.run, STAMP, Reason.PROOF, 20.0)

    def fence(self) -> Fence:
        return Fence("pbx", self.seen.run, STAMP, Reason.OPERATOR, 20.0)

    async def close(self) -> None:
        await self.driver.close()
        self.signal(signal.SIGKILL)
        if self.supervisor is not None:
            self.supervisor.wait()
        netns.remove(self.namespace)


def _is_kamailio(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "kamailio"
    return False


def open_to_others(directory: Path) -> None:
    """Kamailio gives root's rights away before it uses its directory."""
    for entry in (directory, *directory.parents[:2]):
        entry.chmod(0o755)


async def connect(copies: tuple[Copy, Copy]) -> None:
    """T1 between the two, and the clients' network within each: a closed gate has no other way out."""
    for copy in copies:
        await netns.create(copy.namespace)
    await netns.add_veth(*(netns.End(copy.namespace, "t1") for copy in copies))
    for copy in copies:
        async with netns.netlink(copy.namespace) as ip:
            await ip.addr("add", index=await netns.index_of(ip, "t1"), address=copy.t1_address, prefixlen=24)
            for address in (SERVICE, PHONE):
                await ip.addr("add", index=await netns.index_of(ip, "lo"), address=address, prefixlen=32)


async def set_t1(copy: Copy, state: str) -> None:
    async with netns.netlink(copy.namespace) as ip:
        await ip.link("set", index=await netns.index_of(ip, "t1"), state=state)


async def until(condition: Callable[[], Any], what: str) -> None:
    async def met() -> bool:
        return bool(condition())

    await netns.wait_for(met, what, WAIT_SECONDS)


def request(method: str, user: str, phone: socket.socket, **more: str) -> str:
    """A request from a phone to the service, as text (RFC 3261)."""
    me, mark = f"{PHONE}:{phone.getsockname()[1]}", os.urandom(6).hex()
    whom = f"sip:{SERVICE}" if method == "REGISTER" else f"sip:{user}@{SERVICE}"
    fields = {
        "Via": f"SIP/2.0/UDP {me};branch=z9hG4bK{mark}",
        "Max-Forwards": "70",
        "From": f"<sip:{user}@{SERVICE}>;tag={mark}",
        "To": f"<sip:{user}@{SERVICE}>",
        "Call-ID": mark,
        "CSeq": f"1 {method}",
        "Contact": f"<sip:{user}@{me}>",
        "Content-Length": "0",
        **more,
    }
    lines = [f"{method} {whom} SIP/2.0", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines) + "\r\n\r\n"


def register(copy: Copy, user: str, expires_seconds: int = 600) -> int:
    """Register a phone; returns its port. Raises TimeoutError if nobody answers."""
    with copy.phone() as phone:
        phone.sendto(request("REGISTER", user, phone, Expires=str(expires_seconds)).encode(), (SERVICE, 5060))
        answer = phone.recv(4096).decode()
        assert answer.startswith("SIP/2.0 200 "), answer
        return int(phone.getsockname()[1])


def rings(copy: Copy, user: str, port: int) -> bool:
    """Does a call to `user` through this copy reach the phone that registered from `port`?"""
    with copy.phone(port) as phone, copy.phone() as caller:
        caller.sendto(request("INVITE", user, caller).encode(), (SERVICE, 5060))
        try:
            return phone.recv(4096).startswith(f"INVITE sip:{user}@{PHONE}:{port} ".encode())
        except TimeoutError:
            return False
