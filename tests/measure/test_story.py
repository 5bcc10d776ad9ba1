"""Bus events: recorded from a real NATS server, read back, and understood however incomplete they are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch_lab.measure.copies import Answer, overlap, packets_by_site, repeated, rollback
from tunnelswitch_lab.measure.events import BusEvent, read_events
from tunnelswitch_lab.measure.story import connected, moved_before, protected, stamp_epoch, tell

RUNS = st.sampled_from(["old", "new"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["record", "marks", "active"]), inner),
    max_leaves=6,
)


def event(kind: str, at: float, **data: Any) -> BusEvent:
    return BusEvent(at, at, f"tsw.v1.lab.{kind}.x", kind, "test", data)


def nats_server() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found is not None, "nats-server is not installed"
    return found


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, however that ends."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


def wait_for_file(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.02)


@pytest.mark.nats
async def test_recorder_writes_what_is_said_in_its_cluster(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    out, url = tmp_path / "events.jsonl", f"nats://127.0.0.1:{port}"
    program = [sys.executable, "-m", "tunnelswitch_lab.measure.events"]
    with running(nats_server(), "-a", "127.0.0.1", "-p", str(port)):
        connection = await nats.connect(url, max_reconnect_attempts=200, reconnect_time_wait=0.1)
        with running(*program, "--url", url, "--cluster", "lab", "--out", str(out)) as recorder:
            await asyncio.to_thread(wait_for_file, out)
            message = {"type": "tunnelswitch.v1.heartbeat", "time": "2026-01-02T03:04:05Z", "data": {"site": "a"}}
            await connection.publish("tsw.v1.lab.heartbeat.a", json.dumps(message).encode())
            await connection.publish("tsw.v1.lab.heartbeat.b", b"\xff not json")
            await connection.publish("tsw.v1.other.heartbeat.a", b"{}")
            await connection.flush()
            async with asyncio.timeout(20):
                while len(out.read_text(encoding="utf-8").splitlines()) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
        assert recorder.returncode == 0
        await connection.close()
    assert len(out.read_text(encoding="utf-8").splitlines()) == 2, "the other cluster is none of ours"
    [heard] = read_events(out)
    assert (heard.kind, heard.subject, heard.data) == ("heartbeat", "tsw.v1.lab.heartbeat.a", {"site": "a"})
    assert heard.sent_at == 1767323045.0
    assert abs(heard.received_at - time.time()) < 60


def test_recorder_without_a_bus_says_so_in_one_line(tmp_path: Path) -> None:
    command = f"{sys.executable} -m tunnelswitch_lab.measure.events --url nats://127.0.0.1:9 --cluster lab"
    result = subprocess.run(
        [*command.split(), "--out", str(tmp_path / "x")], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith("events: cannot record from nats://127.0.0.1:9")
    assert result.stderr.count("\n") == 1


def test_damaged_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    good = {"received_at": 1, "subject": "s", "event": {"type": "tunnelswitch.v1.proof", "data": [1]}}
    path.write_text(f'{{"received_at": 1\n[]\nnull\n{json.dumps(good)}\n{json.dumps(good)[:-9]}', encoding="utf-8")
    [heard] = read_events(path)
    assert (heard.kind, heard.data, heard.sent_at) == ("proof", {}, 1.0)


@given(
    st.lists(st.builds(event, st.sampled_from(["epoch", "record", "failover", "heartbeat", "traffic"]), st.just(2.0))),
    JSON,
)
def test_any_data_is_survived(events: list[BusEvent], data: Any) -> None:
    kinds = ("epoch", "record", "failover", "heartbeat", "traffic")
    odd = [BusEvent(2.0, 2.0, "s", kind, "", data if isinstance(data, dict) else {"record": data}) for kind in kinds]
    story = tell(events + odd, 1.0, "primary", 5004)
    assert isinstance(story.verdict, str)
    protected(events + odd)


def test_without_events_there_is_no_verdict() -> None:
    story = tell([], 1.0, "primary", 5004)
    assert (story.verdict, story.epoch, story.active_site, story.downtime_seconds) == ("none", None, None, None)


def test_an_epoch_that_keeps_the_active_is_no_failover() -> None:
    record = {"stamp": {"epoch": 1, "minor": 3}, "active": "primary", "reason": "protection"}
    story = tell([event("epoch", 2.0, record=record)], 1.0, "primary", 5004)
    assert (story.verdict, story.epoch, story.active_site) == ("none", 1, "primary")


def test_the_call_is_preferred_to_a_finer_flow() -> None:
    told = [
        event("traffic", 2.0, flow="udp 1.1.1.1:5006 > 2.2.2.2:9", downtime_seconds=0.2, gap_ended_at=2.0),
        event("traffic", 2.0, flow="udp 1.1.1.1:5004 > 2.2.2.2:8", downtime_seconds=0.1, gap_ended_at=2.0),
        event("traffic", 2.0, flow="udp 1.1.1.1:5004 > 2.2.2.2:8", downtime_seconds=9.0, gap_ended_at=0.5),
    ]
    story = tell(told, 1.0, "primary", 5004)
    assert (story.downtime_seconds, story.downtime_of_call) == (0.1, True)
    finer = tell(told[:1], 1.0, "primary", 5004)
    assert (finer.downtime_seconds, finer.downtime_of_call) == (0.2, False)


def test_protected_needs_an_active_and_a_standby_in_sync() -> None:
    active = event("heartbeat", 1.0, site="a", services=[{"role": "active", "in_sync": True}])
    standby = event("heartbeat", 1.0, site="b", services=[{"role": "standby", "in_sync": True}])
    behind = event("heartbeat", 2.0, site="b", services=[{"role": "standby", "in_sync": False}])
    assert not protected([active])
    assert protected([active, standby])
    assert not protected([active, standby, behind]), "the latest word counts"


def test_a_move_before_the_fault_is_found() -> None:
    moved = event("record", 1.0, active="secondary", reason="suspicion", evidence=["path down"])
    assert moved_before([event("heartbeat", 0.5), moved], 2.0, "primary") == "suspicion: path down"
    assert moved_before([moved], 1.0, "primary") is None
    assert moved_before([moved], 2.0, "secondary") is None


@pytest.mark.parametrize(
    ("stamp", "epoch"), [({"epoch": 7}, 7), ("7.0-gw.1", 7), ("rubbish", None), ({}, None), (None, None)]
)
def test_epochs_of_stamps(stamp: object, epoch: int | None) -> None:
    assert stamp_epoch(stamp) == epoch


def test_overlap_counts_replaced_copies_and_double_answers() -> None:
    clean = [Answer(n, "old" if n < 5 else "new", "a", n) for n in range(10)]
    assert overlap(clean) == 0
    assert overlap([*clean, Answer(4, "old", "a", 4)]) == 1, "the old copy spoke after the new one"
    assert overlap([*clean, Answer(3, "new", "b", 11)]) == 1, "a packet that both answered"


def test_a_virtual_machine_may_answer_again_what_its_checkpoint_had_received() -> None:
    answers = [Answer(1, "old", "a", 1), Answer(2, "old", "a", 2), Answer(2, "new", "b", 2), Answer(3, "new", "b", 3)]
    assert repeated(answers) == 1
    assert overlap(answers, replays=True) == 0
    assert overlap([*answers, Answer(4, "old", "a", 3)], replays=True) == 1


def test_rollback_is_what_the_new_copy_does_not_know() -> None:
    old = [Answer(n, "old", "a", n + 1) for n in range(10)]
    assert rollback(old) is None
    assert rollback([*old, Answer(11, "new", "b", 11)]) == 0
    assert rollback([*old, Answer(11, "new", "b", 8), Answer(12, "new", "b", 9)]) == 3


@given(st.lists(st.builds(Answer, st.integers(0, 20), RUNS, RUNS, st.integers(0, 50)), max_size=30))
def test_copies_add_up(answers: list[Answer]) -> None:
    assert sum(packets_by_site(answers).values()) == len(answers)
    assert 0 <= overlap(answers) <= len(answers)
    assert (rollback(answers) is None) == (len({answer.run for answer in answers}) < 2)


def test_connected_means_that_every_site_sees_every_other_one() -> None:
    def beat(at: float, site: str, **paths: str) -> BusEvent:
        return event("heartbeat", at, site=site, observations=[{"subject": s, "path": p} for s, p in paths.items()])

    sites = ("a", "b", "c")
    early = [beat(1, "a", b="up", c="up"), beat(1, "b", a="up", c="up"), beat(1, "c", a="up", b="unknown")]
    assert not connected(early, sites)
    assert not connected(early[:2], sites)
    assert connected([*early, beat(2, "c", a="up", b="up")], sites)
    assert not connected([*early, beat(2, "c", a="up", b="up"), beat(3, "b", a="down", c="up")], sites)
    assert not connected([event("heartbeat", 1, site="a", observations="rubbish")], ("a", "b"))


@pytest.mark.parametrize(
    ("looks_for", "up_for", "is_so"),
    [(4.0, 3.5, True), (4.0, 0.5, False), (9.0, 5.0, False), (14.0, 11.0, True), (14.0, 12.5, True)],
    ids=["up since the start", "not for long enough", "down meanwhile", "long over", "up since the start, for long"],
)
def test_a_path_that_was_lost_meanwhile_must_have_been_back_for_longer(
    looks_for: float, up_for: float, is_so: bool
) -> None:
    observations = [{"subject": "b", "path": "up", "path_seconds": up_for}]
    of_its_life = {"sequence": int(looks_for / 0.02), "interval_seconds": 0.02}
    beat = event("heartbeat", 1, site="a", observations=observations, **of_its_life)
    other = event("heartbeat", 1, site="b", observations=[{"subject": "a", "path": "up", "path_seconds": 99.0}])
    assert connected([beat, other], ("a", "b"), 1.0, 10.0) == is_so
