"""Connections: loss, silence, restarts, wrong servers, TLS, several databases, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from proxy import Proxy
from real_ovs import SCHEMA, Ovs, eventually

from aioovs import (
    ConnectError,
    ConnectionLost,
    Database,
    NotConnected,
    SchemaError,
    SetKeys,
    SslFiles,
)

pytestmark = pytest.mark.ovs
GENEROUS_SECONDS = 15.0
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def set_keys(db: Database, **keys: str) -> SetKeys:
    return SetKeys(db.api, "Open_vSwitch", ".", "external_ids", keys)


async def until_lost(db: Database) -> None:
    await eventually(lambda: not db.connected)


def open_entries(kind: str) -> int:
    """How many threads ("task") or descriptors ("fd") this process has."""
    return len(list(Path(f"/proc/self/{kind}").iterdir()))


async def test_kill_in_the_middle_of_a_transaction_and_restart(ovs: Ovs) -> None:
    async with Database(ovs.remote, liveness_deadline_seconds=60) as db:
        await db.transact(set_keys(db, epoch="1"), durable=True)
        assert ovs.server is not None
        ovs.server.signal(signal.SIGSTOP)
        task = asyncio.create_task(db.transact(set_keys(db, epoch="2"), deadline_seconds=30))
        await asyncio.sleep(0.05)
        ovs.kill_server()
        with pytest.raises(ConnectionLost, match="outcome is unknown") as failure:
            await task
        assert failure.value.committed is None
        ovs.start(init=False)
        await db.wait_connected(GENEROUS_SECONDS)
        row = db.rows("Open_vSwitch")[0]
        assert row["external_ids"]["epoch"] == "1"
        assert (await db.transact(set_keys(db, epoch="3"))).changed
        assert db.problem is None


async def test_a_stopped_server_is_dead_within_the_liveness_deadline(ovs: Ovs) -> None:
    async with Database(ovs.remote, liveness_interval_seconds=0.1, liveness_deadline_seconds=0.4) as db:
        assert ovs.server is not None
        begin = time.monotonic()
        ovs.server.signal(signal.SIGSTOP)
        with pytest.raises(ConnectionLost, match=r"no answer to an echo within 0\.4 s"):
            await db.transact(set_keys(db, epoch="1"), deadline_seconds=60)
        assert 0.2 < time.monotonic() - begin < 20
        assert not db.connected
        await asyncio.sleep(1)  # attempts that the kernel accepts and nobody answers
        assert not db.connected
        ovs.server.signal(signal.SIGCONT)
        for epoch in range(2, 20):
            await db.wait_connected(GENEROUS_SECONDS)
            with contextlib.suppress(ConnectionLost, NotConnected):  # its deadline is short for a machine that stalls
                assert (await db.transact(set_keys(db, epoch=str(epoch)))).changed
                break
        else:
            raise AssertionError(db.problem)


async def test_an_idle_connection_stays_alive(ovs: Ovs) -> None:
    async with Database(ovs.remote, liveness_interval_seconds=0.02, liveness_deadline_seconds=20) as db:
        session = db._keeper.session
        await asyncio.sleep(0.5)
        assert db._keeper.session is session


async def test_our_own_lateness_is_not_taken_for_the_servers(ovs: Ovs) -> None:
    async with Database(ovs.remote, liveness_interval_seconds=0.05, liveness_deadline_seconds=0.1) as db:
        session = db._keeper.session
        assert session is not None
        assert session._transport is not None
        connection = session._transport.get_extra_info("socket").fileno()
        for _ in range(3):
            while session._echo_sent_at is None and session.lost_reason is None:  # noqa: ASYNC110
                await asyncio.sleep(0)
            # A loop that is stuck, with an echo on its way: the answer is there, and we come to it too late.
            assert select.select([connection], [], [], GENEROUS_SECONDS)[0]
            time.sleep(0.3)  # noqa: ASYNC251
            for _ in range(2):  # it reads, and looks at the time
                await asyncio.sleep(0)
        assert db._keeper.session is session


async def test_a_server_that_has_stopped_accepting_is_no_hang(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        first.connect(str(tmp_path / "s"))  # nobody accepts, and there is room for no other
        with pytest.raises(ConnectError, match="stopped accepting"):
            await Database(f"unix:{tmp_path}/s", connect_deadline_seconds=0.3).open()


async def test_garbage_is_a_lost_connection_and_no_more(ovs: Ovs, proxied: Callable[[], Awaitable[Proxy]]) -> None:
    proxy = await proxied()
    uuid_key = "00000000-0000-0000-0000-000000000001"
    unknown_row = {"Bridge": {uuid_key: {"modify": {"name": "x"}}}}
    bad_update = json.dumps({"id": None, "method": "update2", "params": ["x", unknown_row]}).encode()
    async with Database(proxy.remote) as db:
        for garbage, words in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak OVSDB"),
            (b'{"neither":"this"}', "does not speak OVSDB"),
            (bad_update, "cannot digest"),
            (b'{"id":null,"method":"update3","params":["x","y",[]]}', "cannot digest"),
        ):
            proxy.spoil(garbage)
            await until_lost(db)
            assert words in (db.problem or "")
            await db.wait_connected(GENEROUS_SECONDS)
        proxy.cut()
        await until_lost(db)
        await db.wait_connected(GENEROUS_SECONDS)
        assert (await db.transact(set_keys(db, epoch="1"))).changed


@asynccontextmanager
async def imposter(path: Path, says: bytes) -> AsyncIterator[str]:
    """A server that says one thing to everybody and reads on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        while await reader.read(1000):
            pass
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield f"unix:{path}"
    finally:
        server.close()
        await server.wait_closed()


async def refused(remote: str, words: str = "", ssl: SslFiles | None = None) -> None:
    """open() tries until its deadline, and then says these words. A machine that stood still till then gets more."""
    for deadline_seconds in (0.5, 5.0, 20.0):
        with pytest.raises(ConnectError) as failure:
            await Database(remote, ssl=ssl, connect_deadline_seconds=deadline_seconds).open()
        if re.search(words, str(failure.value)):
            return
    raise AssertionError(f"{failure.value} instead of {words}")


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak OVSDB"),
        (b"", "no answer from the server within|echo"),
        (b'{"id":0,"result":', "no answer from the server within|echo"),
    ],
)
async def test_a_wrong_server_is_explained_within_the_deadline(tmp_path: Path, says: bytes, words: str) -> None:
    async with imposter(tmp_path / "s", says) as remote:
        await refused(remote, words)


async def test_an_absent_server_is_explained_within_the_deadline(tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="No such file or directory; is ovsdb-server running there"):
        await Database(f"unix:{tmp_path}/absent.sock", connect_deadline_seconds=0.3).open()


async def test_open_waits_for_a_server_that_comes_late(bare_ovs: Callable[[], Ovs]) -> None:
    ovs = bare_ovs()
    db = Database(ovs.remote, connect_deadline_seconds=GENEROUS_SECONDS)
    opening = asyncio.create_task(db.open())
    await asyncio.sleep(0.2)
    await asyncio.to_thread(ovs.start)
    await opening
    assert db.connected
    await db.close()


async def test_a_schema_that_lacks_what_is_asked_for_is_an_error_at_once(ovs: Ovs) -> None:
    for tables, words in (
        ({"Nowhere": ["name"]}, "no table Nowhere"),
        ({"Bridge": ["nix"]}, "no columns nix in table"),
    ):
        with pytest.raises(SchemaError, match=words):
            await Database(ovs.remote, tables=tables).open()
    with pytest.raises(SchemaError, match="no database 'OVN_Southbound' there"):
        await Database(ovs.remote, schema="OVN_Southbound").open()


async def test_a_restart_with_an_unknown_schema_is_told_and_survived(ovs: Ovs, tmp_path: Path) -> None:
    schema = json.loads(SCHEMA.read_text())
    del schema["tables"]["Bridge"]["columns"]["fail_mode"]
    schema["tables"]["Bridge"]["columns"]["novel"] = {"type": "string"}
    other = tmp_path / "other.ovsschema"
    other.write_text(json.dumps(schema))
    async with Database(ovs.remote, tables={"Bridge": ["name", "fail_mode"]}) as db:
        ovs.kill_server()
        ovs.create(other)
        ovs.start()
        await eventually(lambda: "no columns fail_mode" in (db.problem or ""))
        with pytest.raises(NotConnected, match="no columns fail_mode in table Bridge"):
            await db.transact()
        ovs.kill_server()
        ovs.create()
        ovs.start()
        await db.wait_connected(GENEROUS_SECONDS)


async def test_a_schema_converted_under_us_is_read_again(ovs: Ovs, tmp_path: Path) -> None:
    schema = json.loads(SCHEMA.read_text())
    schema["tables"]["Bridge"]["columns"]["novel"] = {"type": {"key": "string", "min": 0, "max": 1}}
    schema["version"] = "99.0.0"
    newer = tmp_path / "newer.ovsschema"
    newer.write_text(json.dumps(schema))
    async with Database(ovs.remote) as db:
        await db.transact(db.api.add_br("br0"))
        convert = ["ovsdb-client", "convert", ovs.remote, str(newer)]
        await asyncio.to_thread(subprocess.run, convert, check=True, capture_output=True)
        await eventually(lambda: db.connected and "novel" in db.rows("Bridge")[0].columns)
        await db.transact(db.api.db_set("Bridge", "br0", ("novel", "value")))
        assert [row["novel"] for row in db.rows("Bridge")] == ["value"]


async def test_two_databases_in_one_process_are_not_mixed_up(bare_ovs: Callable[[], Ovs]) -> None:
    one, two = bare_ovs(), bare_ovs()
    one.start()
    two.start()
    async with Database(one.remote) as first, Database(two.remote) as second:
        await asyncio.gather(first.transact(first.api.add_br("in1")), second.transact(second.api.add_br("in2")))
        assert (one.vsctl("list-br"), two.vsctl("list-br")) == ("in1", "in2")
        assert first.api.list_br().execute(check_error=True) == ["in1"]
        assert second.api.list_br().execute(check_error=True) == ["in2"]


async def test_tcp(bare_ovs: Callable[[], Ovs]) -> None:
    ovs = bare_ovs()
    ovs.start("--remote=ptcp:0:127.0.0.1")
    port = listening_port(ovs)
    async with Database(f"tcp:127.0.0.1:{port}") as db:
        assert (await db.transact(db.api.add_br("br0"))).changed


def listening_port(ovs: Ovs) -> int:
    """The port that ovsdb-server got from the kernel, from its own socket table."""
    assert ovs.server is not None
    listing = subprocess.run(["ss", "-Htlnp"], check=True, capture_output=True, text=True).stdout
    line = next(line for line in listing.splitlines() if f"pid={ovs.server.child.pid}," in line)
    return int(line.split()[3].rsplit(":", 1)[1])


class Pki:
    """A CA and certificates of it, made with openssl."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.ca = directory / "ca.crt"
        self._openssl(
            *("req", "-x509", *NEW_KEY, "-days", "2", "-subj", "/CN=ca"),
            *("-keyout", str(directory / "ca.key"), "-out", str(self.ca)),
        )

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)

    def issue(self, name: str) -> tuple[Path, Path]:
        """A key and its certificate."""
        key, request, certificate = (self.directory / f"{name}.{end}" for end in ("key", "csr", "crt"))
        self._openssl(
            *("req", *NEW_KEY, "-subj", f"/CN={name}"),
            *("-keyout", str(key), "-out", str(request)),
        )
        self._openssl(
            *("x509", "-req", "-days", "2", "-in", str(request), "-out", str(certificate)),
            *("-CA", str(self.ca), "-CAkey", str(self.directory / "ca.key"), "-CAcreateserial"),
        )
        return key, certificate

    def client(self, name: str) -> SslFiles:
        """What a Database needs."""
        key, certificate = self.issue(name)
        return SslFiles(key, certificate, self.ca)


def start_with_tls(ovs: Ovs, pki: Pki) -> str:
    key, certificate = pki.issue("server")
    ovs.start(
        "--remote=pssl:0:127.0.0.1", f"--private-key={key}", f"--certificate={certificate}", f"--ca-cert={pki.ca}"
    )
    return f"ssl:127.0.0.1:{listening_port(ovs)}"


async def test_tls_with_two_identities_in_one_process(bare_ovs: Callable[[], Ovs], tmp_path: Path) -> None:
    pki_one, pki_two = Pki(tmp_path / "one"), Pki(tmp_path / "two")
    one, two = bare_ovs(), bare_ovs()
    remote_one, remote_two = start_with_tls(one, pki_one), start_with_tls(two, pki_two)
    files_one, files_two = pki_one.client("client"), pki_two.client("client")
    async with Database(remote_one, ssl=files_one) as first, Database(remote_two, ssl=files_two) as second:
        assert (await first.transact(first.api.add_br("in1"))).changed
        assert (await second.transact(second.api.add_br("in2"))).changed
        assert (one.vsctl("list-br"), two.vsctl("list-br")) == ("in1", "in2")
    await refused(remote_two, "certificate verify failed", files_one)
    stranger = SslFiles(files_one.private_key, files_one.certificate, files_two.ca_certificate)
    await refused(remote_two, ssl=stranger)
    named = SslFiles(files_one.private_key, files_one.certificate, files_one.ca_certificate, "not-its-name")
    await refused(remote_one, r"[Hh]ostname mismatch", named)


async def test_tls_needs_its_files(tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="give ssl=SslFiles"):
        await Database("ssl:127.0.0.1:1", connect_deadline_seconds=0.2).open()
    absent = SslFiles(tmp_path / "k", tmp_path / "c", tmp_path / "ca")
    with pytest.raises(ConnectError, match="TLS files unusable"):
        await Database("ssl:127.0.0.1:1", ssl=absent, connect_deadline_seconds=0.2).open()


@pytest.mark.parametrize(
    "remote", ["", "unix:", "db.sock", "tcp:", "tcp:host:0", "tcp:host:65536", "tcp:a:b", "tcp:::1:6640", "http://x"]
)
async def test_a_bad_remote_is_refused(remote: str) -> None:
    with pytest.raises(ConnectError, match="bad remote"):
        Database(remote)


async def test_bounds_are_checked() -> None:
    with pytest.raises(ValueError, match="liveness_deadline_seconds must be above 0"):
        Database("unix:/x", liveness_deadline_seconds=0)


async def test_closing_leaves_no_tasks_and_no_descriptors(ovs: Ovs) -> None:
    tasks, descriptors = len(asyncio.all_tasks()), open_entries("fd")
    for _ in range(3):
        db = Database(ovs.remote)
        await db.open()
        await db.close()
        await db.close()
    with pytest.raises(SchemaError):
        await Database(ovs.remote, schema="absent").open()
    assert (len(asyncio.all_tasks()), open_entries("fd")) == (tasks, descriptors)
    db = Database(ovs.remote)
    await db.open()
    pending = asyncio.create_task(db.wait_applied(10**6, 60))
    await asyncio.sleep(0)
    ovs.kill_server()
    await until_lost(db)
    await db.close()  # in the middle of reconnecting
    with pytest.raises(ConnectionLost):
        await pending
    assert (len(asyncio.all_tasks()), open_entries("fd")) == (tasks, descriptors - 1)  # the server's log
    with pytest.raises(ValueError, match="opened once"):
        await db.open()


async def test_no_threads(ovs: Ovs) -> None:
    before = open_entries("task")
    async with Database(ovs.remote) as db:
        await db.transact(set_keys(db, epoch="1"))
        assert open_entries("task") == before
