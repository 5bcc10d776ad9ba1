"""Checkpoints that are carried: what goes in comes out, a little of it travels, and neither end is left waiting."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machines import free_port

from tunnelswitch.errors import DriverError
from tunnelswitch.replication.carrying import STREAMS_MAX, Carrier

LIMIT_SECONDS = 20.0
PAGE = 4096
BEGINNING = b"QEVM"  # QEMU speaks at once
MAGIC = b"\x28\xb5\x2f\xfd"  # RFC 8878, 3.1.1
EXAMPLE = Path(__file__).parents[2] / "deploy/example.toml"
COMMAND = (sys.executable, "-c", "from tunnelswitch.cli.main import run; run()")


class Sites:
    """Two carriers on one host, between two programs that behave as QEMU does at their sockets."""

    def __init__(self, directory: Path, wire: Callable[[str], str] = str) -> None:
        self._directory = directory
        self._ends: list[socket.socket] = []
        self.here, self.there = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.carriers = [
            Carrier("vm", self.path("one-out"), self.path("one-in"), self.here, wire(self.there)),
            Carrier("vm", self.path("two-out"), self.path("two-in"), self.there, self.here),
        ]
        for carrier in self.carriers:
            carrier.start()

    def path(self, name: str) -> Path:
        return self._directory / f"{name}.sock"

    def wait_for_machine(self) -> socket.socket:
        """A standby that waits for one machine, at the second site."""
        self.path("two-in").unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.settimeout(LIMIT_SECONDS)
        listener.bind(str(self.path("two-in")))
        listener.listen(1)
        return listener

    def send_machine(self) -> socket.socket:
        """An active that begins to send, at the first site."""
        sender = socket.socket(socket.AF_UNIX)
        sender.settimeout(LIMIT_SECONDS)
        sender.connect(str(self.path("one-out")))
        with contextlib.suppress(ConnectionError):  # it may have hung up already
            sender.sendall(BEGINNING)
        return sender

    def stream(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of one that is carried."""
        with self.wait_for_machine() as listener:
            sender = self.send_machine()
            taker, _ = listener.accept()
        taker.settimeout(LIMIT_SECONDS)
        assert taker.recv(len(BEGINNING)) == BEGINNING
        self._ends += [sender, taker]
        return sender, taker

    def close(self) -> None:
        for end in self._ends:
            end.close()
        for carrier in self.carriers:
            carrier.close()


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Sites]:
    made = Sites(tmp_path)
    yield made
    made.close()


def read(source: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = source.recv(min(1 << 16, count - len(data)))
        assert piece, f"the stream ended after {len(data)} of {count} bytes"
        data += piece
    return bytes(data)


def resident_kb() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() >> 10


def is_over(end: socket.socket) -> bool:
    """Does the other side say that nothing more comes? Raises TimeoutError if it does not."""
    try:
        return end.recv(1) == b""
    except ConnectionError:
        return True


def test_a_machine_and_its_standbys_answers_pass_unchanged(sites: Sites) -> None:
    sender, taker = sites.stream()
    with sender, taker:
        for size in (1, 59_324, 3_000_000, 7):
            checkpoint = os.urandom(size)
            thread = threading.Thread(target=sender.sendall, args=(checkpoint,))
            thread.start()
            assert read(taker, size) == checkpoint
            thread.join()
            taker.sendall(b"loaded")
            assert read(sender, 6) == b"loaded"


class Wire:
    """T1 between the two sites, on which one can count and cut: it passes on what comes to its own address."""

    def __init__(self, to: str) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.carried_bytes = 0
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        near, _ = self._listener.accept()
        host, _, port = self._to.rpartition(":")
        far = socket.create_connection((host, int(port)))
        self._ends = [near, far]
        threading.Thread(target=self._pass, args=(far, near), daemon=True).start()
        self._pass(near, far)

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.carried_bytes += len(data)
                sink.sendall(data)

    def cut(self) -> None:
        for end in (*self._ends, self._listener):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def wired(tmp_path: Path) -> Iterator[tuple[Sites, Wire]]:
    made: list[Wire] = []

    def wire(to: str) -> str:
        made.append(Wire(to))
        return made[0].address

    sites = Sites(tmp_path, wire)
    yield sites, made[0]
    sites.close()
    made[0].cut()


def test_of_a_checkpoint_little_more_travels_than_what_is_new_in_it(wired: tuple[Sites, Wire]) -> None:
    sites, wire = wired
    pages = [bytearray(os.urandom(PAGE)) for _ in range(150)]
    sender, taker = sites.stream()
    with sender, taker:
        for number in range(5):
            for page in pages:
                page[number : number + 8] = os.urandom(8)
            before, checkpoint = wire.carried_bytes, b"".join(bytes(page) for page in pages)
            thread = threading.Thread(target=sender.sendall, args=(checkpoint,))
            thread.start()
            assert read(taker, len(checkpoint)) == checkpoint
            thread.join()
            if number:
                assert wire.carried_bytes - before < len(checkpoint) / 20


def test_a_machine_full_of_the_same_page_is_not_unpacked_all_at_once(sites: Sites) -> None:
    """So little travels of it that much more could be on its way than the taker has asked for."""
    size, page = 512 << 20, bytes(range(256)) * 256
    sender, taker = sites.stream()

    def send() -> None:
        for _ in range(size // len(page)):
            sender.sendall(page)

    with sender, taker:
        thread = threading.Thread(target=send)
        thread.start()
        time.sleep(0.5)  # the taker is slow
        left, most_kb, before_kb = size, 0, resident_kb()
        while left:
            piece = taker.recv(min(left, 1 << 20))
            assert piece
            left -= len(piece)
            most_kb = max(most_kb, resident_kb())
        thread.join()
    assert most_kb - before_kb < 150_000


def test_each_end_hears_when_the_other_one_is_gone(sites: Sites) -> None:
    for first in (0, 1):
        stream = sites.stream()
        stream[first].close()
        assert is_over(stream[1 - first])
        stream[1 - first].close()


def test_a_cut_line_ends_the_stream_at_both_sites(wired: tuple[Sites, Wire]) -> None:
    sites, wire = wired
    sender, taker = sites.stream()
    with sender, taker:
        sender.sendall(b"half a checkpoint")
        assert read(taker, 17) == b"half a checkpoint"
        wire.cut()
        assert is_over(sender)
        assert is_over(taker)


def test_a_machine_is_told_at_once_that_nobody_waits_for_it(sites: Sites) -> None:
    with sites.send_machine() as sender:
        assert is_over(sender)
    sites.stream()  # and the next attempt finds one that does


def test_a_machine_is_told_at_once_that_there_is_no_carrier_at_the_other_site(sites: Sites) -> None:
    sites.carriers[1].close()
    with sites.send_machine() as sender:
        assert is_over(sender)


@pytest.mark.parametrize(
    "said",
    [b"QEVM\0\0\0\3 a machine that is not carried", bytes(range(1, 256)) * 16, b"", MAGIC + bytes(64)],
    ids=["QEMU itself", "anything", "nothing", "half a frame"],
)
def test_what_is_no_carriers_stream_ends_and_the_next_one_is_taken(sites: Sites, said: bytes) -> None:
    host, _, port = sites.there.rpartition(":")
    with sites.wait_for_machine() as listener, socket.create_connection((host, int(port))) as stranger:
        stranger.settimeout(LIMIT_SECONDS)
        with contextlib.suppress(OSError):  # it hangs up when it has seen enough
            stranger.sendall(said)
            stranger.shutdown(socket.SHUT_WR)
        assert is_over(stranger)
        if said.startswith(MAGIC):
            listener.accept()[0].close()
        else:
            listener.setblocking(False)  # a standby takes in one stream: this one it never saw
            with pytest.raises(BlockingIOError):
                listener.accept()
    sites.stream()


def test_whoever_says_nothing_does_not_get_the_standby(sites: Sites) -> None:
    host, _, port = sites.there.rpartition(":")
    with socket.create_connection((host, int(port))):
        sender, taker = sites.stream()
        sender.sendall(b"a machine")
        assert taker.recv(64) == b"a machine"


def test_strangers_do_not_crowd_a_machine_out_for_ever(sites: Sites) -> None:
    host, _, port = sites.there.rpartition(":")
    with contextlib.ExitStack() as held, sites.wait_for_machine() as listener:
        for _ in range(STREAMS_MAX + 3):
            held.enter_context(socket.create_connection((host, int(port)))).sendall(MAGIC)
        for _ in range(STREAMS_MAX):
            held.enter_context(listener.accept()[0])
        with sites.send_machine() as sender:
            assert is_over(sender)
    for _ in range(200):
        with sites.wait_for_machine(), sites.send_machine() as sender:
            sender.settimeout(1.0)
            with contextlib.suppress(TimeoutError):
                if is_over(sender):
                    time.sleep(0.1)
                    continue
            return
    raise AssertionError("the places of strangers that left are not given back")


def test_a_second_carrier_leaves_the_first_one_alone(sites: Sites) -> None:
    second = Carrier("vm", sites.path("one-out"), sites.path("one-in"), sites.here, sites.there)
    with pytest.raises(DriverError, match="already in use"):
        second.start()
    second.close()
    sites.stream()


def test_an_address_that_is_not_ours_is_refused_with_a_remedy(tmp_path: Path) -> None:
    carrier = Carrier("vm", tmp_path / "out", tmp_path / "in", "192.0.2.1:7001", "127.0.0.1:7001")
    with pytest.raises(DriverError, match=r"192\.0\.2\.1:7001"):
        carrier.start()
    carrier.close()


def deployment_file(directory: Path) -> Path:
    """The example's machine, whose checkpoints this host carries on its own loopback."""
    text = EXAMPLE.read_text(encoding="utf-8").replace('driver = "exec"', 'driver = "colo"')
    exec_table = text[text.index("[services.pbx.exec]") : text.index("[detection]")]
    colo = f'''[services.pbx.colo]
qmp_socket = "/run/pbx/qmp-{{site}}.sock"
carrier_directory = "{directory}"
[services.pbx.colo.sites.primary]
migration_address = "127.0.0.1:{free_port()}"
[services.pbx.colo.sites.secondary]
migration_address = "127.0.0.1:{free_port()}"
'''
    file = directory / "deployment.toml"
    file.write_text(text.replace(exec_table, colo), encoding="utf-8")
    return file


def takes_streams_in(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as machine:
        for _ in range(400):
            with contextlib.suppress(OSError):
                machine.connect(str(path))
                return True
            time.sleep(0.05)
    return False


def test_the_command_carries_until_it_is_told_to_end(tmp_path: Path) -> None:
    """One that was killed leaves its socket behind; the next one takes its place."""
    command = [*COMMAND, "carry", "--config", str(deployment_file(tmp_path)), "--site", "primary"]
    out = tmp_path / "pbx-primary-out.sock"
    for end in (subprocess.Popen.kill, subprocess.Popen.terminate):
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            assert takes_streams_in(out)
        finally:
            end(process)
            process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, out.exists()) == (0, False)


def test_the_command_says_when_there_is_nothing_to_carry() -> None:
    command = [*COMMAND, "carry", "--config", str(EXAMPLE), "--site", "primary"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "carrier_directory" in done.stderr
