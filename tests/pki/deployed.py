"""A deployment of two groups with a gateway each, and a real nats-server that knows its identities."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats

from tunnelswitch.bus.access import Access
from tunnelswitch.bus.connection import Timing
from tunnelswitch.config import Deployment
from tunnelswitch.config.reading import parse
from tunnelswitch.pki.identities import STORE_API, Identity, Role
from tunnelswitch.pki.issue import ACCOUNTS, CA, issue

EXAMPLE = Path(__file__).parents[2] / "deploy/example.toml"
PATIENT = Timing(connect_seconds=15.0, silence_seconds=60.0)  # with a machine that stands still for a while
_SECOND_GROUP = """
[sites.edge]
kind = "gateway"
underlay_address = "10.9.0.4"
ovsdb = "ssl:edge.example:6640"
bridges = ["br-svc"]
probe_bridge = "br-probe"
nats_server = "edge"
nats_url = "nats://bus.edge.example:4222"
agent_metrics = "10.9.0.4:9101"
switcher_metrics = "10.9.0.4:9102"
client_port = "client0"
tls = { certificate = "edge.crt", private_key = "edge.key", ca = "ca.crt" }

[sites.watcher]
kind = "witness"
underlay_address = "10.9.0.5"
ovsdb = "unix:/run/openvswitch/watcher/db.sock"
probe_bridge = "br-probe"
nats_server = "watcher"
agent_metrics = "10.9.0.5:9101"

[groups.web]
preferred = "secondary"
standby = "primary"
gateways = ["edge"]
services = ["shop"]

[services.shop]
driver = "exec"
bridge = "br-svc"
t2_key = 12
t3_key = 13
address = "192.168.77.11"

[services.shop.exec]
promote = ["/bin/true"]
fence = ["/bin/true"]
status = ["/bin/true"]
"""


def two_groups(urls: str = '["nats://127.0.0.1:4222"]') -> Deployment:
    """Example and a second group. The NATS nodes are at `urls`, a TOML list."""
    text = re.sub(r"^nats_urls = .*", f"nats_urls = {urls}", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return parse(text + _SECOND_GROUP, "two-groups.toml")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def access_of(keys: Path, identity: Identity, *, tls: bool = False) -> Access:
    """As the processes get in."""
    ca = str(keys / CA) if tls else None
    return Access(seed=str(identity.seed(keys)), inbox=identity.inbox, ca=ca, jetstream_api=STORE_API)


class Node:
    """One nats-server with JetStream on loopback, and the keys to it."""

    def __init__(self, directory: Path, deployment: Deployment, more: str = "") -> None:
        self.deployment = deployment
        self.keys = directory / "pki"
        issue(deployment, self.keys)
        port = free_port()
        self.url = f"nats://127.0.0.1:{port}"
        self.configuration = self.keys / ACCOUNTS.parent / "nats.conf"
        self.configuration.write_text(
            f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{directory}/store" }}\n'
            f"include {ACCOUNTS.name}\n{more}\n",
            encoding="utf-8",
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[Node]:
        """The server, for a while."""
        program = Path(sys.executable).with_name("nats-server")
        command = ["setpriv", "--pdeathsig", "KILL", str(program), "-c", str(self.configuration)]
        log = self.configuration.with_suffix(".log")
        with log.open("wb") as out:
            process = self._process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            end = time.monotonic() + 20
            while b"Server is ready" not in log.read_bytes():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end
                time.sleep(0.02)
            yield self
        finally:
            process.kill()
            process.wait()

    def reload(self) -> None:
        """As `nats-server --signal reload` does."""
        self._process.send_signal(signal.SIGHUP)

    async def connect(self, identity: Identity, *, tls: bool = False, **options: Any) -> Voice:
        """A bare client of an identity."""
        voice = Voice()
        access = access_of(self.keys, identity, tls=tls)
        voice.client = await nats.connect(
            self.url, allow_reconnect=False, error_cb=voice.complain, **{**access.options(), **options}
        )
        return voice


class Voice:
    """A client that remembers what the server forbade."""

    client: Any

    def __init__(self) -> None:
        self.forbidden: list[str] = []

    async def complain(self, error: Exception) -> None:
        found = re.search(r'permissions violation for (?:publish|subscription) to "([^"]+)"', str(error), re.IGNORECASE)
        assert found, error
        self.forbidden.append(found[1])

    async def refused(self, act: Callable[[str], Any], names: list[str]) -> set[str]:
        """Which of the subjects the server does not let it do this to: the refusals come before the pong."""
        self.forbidden.clear()
        for name in names:
            await act(name)
        await self.client.flush()  # nats-py's first ping overtakes what it still holds back
        await self.client.flush()
        written = {name.lower(): name for name in names}  # and it writes errors in small letters
        assert len(written) == len(set(names))
        return {written[name] for name in self.forbidden}


def who(name: str) -> Identity:
    """The identity of this name, such as `primary/agent` or `operator`."""
    holder, _, role = name.partition("/")
    return Identity(holder, Role(role or holder))
