"""Network namespaces without a name, and real switches in them, for these tests.

A namespace lives as long as this process holds its descriptor, and every child dies with this process
(PR_SET_PDEATHSIG), so a killed run leaves nothing behind. It knows nothing of tunnelswitch.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pyroute2 import AsyncIPRoute, netns

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
START_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17
_libc = ctypes.CDLL(None, use_errno=True)


def wait_until(true: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


class Namespace:
    """One network namespace."""

    def __init__(self) -> None:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            assert _libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            for scope in ("all", "default"):  # nothing speaks unasked
                Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
        finally:
            netns.setns(home)
            os.close(home)

    def close(self) -> None:
        os.close(self.fd)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Moves this thread into it; never await inside."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            netns.setns(self.fd)
            yield
        finally:
            netns.setns(home)
            os.close(home)

    def netlink(self) -> AsyncIPRoute:
        with self.entered():
            opened = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)
        return AsyncIPRoute(fileno=opened.detach())

    def udp(self, address: str, port: int) -> socket.socket:
        """A non-blocking socket in it."""
        with self.entered():
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        made.bind((address, port))
        return made

    async def set_up(self, device: str, address: str | None = None, **attributes: object) -> None:
        async with self.netlink() as ip:
            index = (await ip.link_lookup(ifname=device))[0]
            await ip.link("set", index=index, state="up", **attributes)
            if address is not None:
                host, length = address.split("/")
                await ip.addr("add", index=index, address=host, prefixlen=int(length))

    async def set_down(self, device: str) -> None:
        async with self.netlink() as ip:
            await ip.link("set", index=(await ip.link_lookup(ifname=device))[0], state="down")

    async def delete(self, device: str) -> None:
        async with self.netlink() as ip:
            await ip.link("del", index=(await ip.link_lookup(ifname=device))[0])


async def veth(left: Namespace, left_name: str, right: Namespace, right_name: str) -> None:
    """A pair with checksum offload off: a userspace switch would hand on frames without checksums."""
    async with left.netlink() as ip:
        await ip.link("add", kind="veth", ifname=left_name, peer={"ifname": right_name, "net_ns_fd": right.fd})
    for namespace, name in ((left, left_name), (right, right_name)):
        value = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_STXCSUM, 0))
        with namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCETHTOOL, struct.pack("16sQ16x", name.encode(), ctypes.addressof(value)))


class Switch:
    """An ovsdb-server and an ovs-vswitchd in a namespace, on a database of their own."""

    def __init__(self, namespace: Namespace) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tsw-a-"))
        self.remote = f"unix:{self.directory}/db.sock"
        self._namespace = namespace
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        subprocess.run(["ovsdb-tool", "create", self.directory / "conf.db", SCHEMA], check=True)
        self.start_server()
        self.vsctl("init", wait=False)
        self.start_vswitchd()

    def start_server(self) -> None:
        (self.directory / "db.sock").unlink(missing_ok=True)
        self._spawn("ovsdb-server", str(self.directory / "conf.db"), f"--remote=p{self.remote}", "dbctl")
        wait_until((self.directory / "db.sock").exists, "ovsdb-server")

    def start_vswitchd(self) -> None:
        self._spawn("ovs-vswitchd", self.remote, "--disable-system", "ctl")

    def kill_server(self) -> None:
        self._processes["ovsdb-server"].kill()
        self._processes["ovsdb-server"].wait()

    def close(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ["ovs-appctl", "-T", "5", "-t", str(self.directory / "ctl"), "exit", "--cleanup"],
                check=False,
                capture_output=True,
            )
            self._processes["ovs-vswitchd"].wait(timeout=5)
        for process in reversed(self._processes.values()):
            process.kill()
            process.wait()
        subprocess.run(["rm", "-rf", str(self.directory)], check=True)

    def vsctl(self, *arguments: str, wait: bool = True) -> str:
        command = ["ovs-vsctl", f"--db={self.remote}", "--timeout=15", *([] if wait else ["--no-wait"]), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def appctl(self, *arguments: str) -> str:
        command = ["ovs-appctl", "-t", str(self.directory / "ctl"), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _spawn(self, program: str, *arguments: str) -> None:
        *rest, control = arguments
        namespace_fd = self._namespace.fd

        def before() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            _libc.setns(namespace_fd, _CLONE_NEWNET)

        self._processes[program] = subprocess.Popen(
            [program, *rest, f"--unixctl={self.directory / control}", "--no-chdir", "-vconsole:off", "-vfile:off"],
            env={**os.environ, "OVS_RUNDIR": str(self.directory), "OVS_LOGDIR": str(self.directory)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=before,  # noqa: PLW1509
        )
