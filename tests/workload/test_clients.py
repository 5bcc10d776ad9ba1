"""The RTP client and the probe as real processes against a real service."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_process import Copy, free_port

from tunnelswitch_lab.workload.trace import Received, Sent, TraceError, read_trace, read_trace_summary


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Copy]:
    copy = Copy(tmp_path, "alpha", "127.77.1.1", free_port(), free_port())
    copy.start("active")
    yield copy
    copy.close()


def drift(sent: list[Sent], interval_seconds: float) -> float:
    """How much later against its own time than the earliest packet of the first half that of the second half is."""
    late = [record.sent_ns / 1e9 - number * interval_seconds for number, record in enumerate(sent)]
    half = len(late) // 2
    return min(late[half:]) - min(late[:half])


@pytest.mark.parametrize(("module", "port", "interval_seconds"), [("rtp_client", 5004, 0.02), ("probe", 5006, 0.001)])
def test_client_records_what_it_sent_and_who_answered(
    module: str, port: int, interval_seconds: float, service: Copy, tmp_path: Path
) -> None:
    out = tmp_path / "trace"
    command = f"{sys.executable} -m tunnelswitch_lab.workload.{module} --host {service.address} --port {port}"
    command += f" --out {out} --realtime 1"
    with subprocess.Popen(command.split()) as client:
        asked_at = time.monotonic()
        while not out.exists():  # it listens to signals by now
            assert time.monotonic() < asked_at + 20
            time.sleep(0.01)
        time.sleep(1)
        client.send_signal(signal.SIGTERM)
        assert client.wait(timeout=20) == 0
    records = list(read_trace(out))
    sent = [record for record in records if isinstance(record, Sent)]
    received = [record for record in records if isinstance(record, Received)]
    summary = read_trace_summary(out)
    assert len(sent) == summary["sent"] > 0.2 / interval_seconds
    assert len(received) == summary["received"] == len(sent), "loopback loses nothing"
    assert [record.sequence for record in sent] == list(range(len(sent)))
    assert [record.sequence for record in received] == list(range(len(sent)))
    assert [record.counter for record in received] == list(range(1, len(sent) + 1))
    assert {(record.site, record.run) for record in received} == {("alpha", service.status()["run"])}
    times = {record.sequence: record.sent_ns for record in sent}
    assert all(times[record.sequence] <= record.received_ns for record in received)
    skipped_seconds, tolerance_seconds = summary["skipped"] * interval_seconds, 0.025 * interval_seconds * len(sent)
    drift_seconds = drift(sent, interval_seconds)
    assert -tolerance_seconds <= drift_seconds <= tolerance_seconds + skipped_seconds, "deadlines are absolute"
    assert 0 <= summary["lateness_p99_seconds"] <= summary["lateness_max_seconds"]


def test_client_without_a_service_records_its_questions(tmp_path: Path) -> None:
    out = tmp_path / "trace"
    command = f"{sys.executable} -m tunnelswitch_lab.workload.rtp_client --host 127.77.1.9 --out {out}"
    assert subprocess.run([*command.split(), "--seconds", "0.1"], timeout=20, check=False).returncode == 0
    assert all(isinstance(record, Sent) for record in read_trace(out))
    assert read_trace_summary(out)["received"] == 0


def test_unwritable_output_is_one_clear_line(tmp_path: Path) -> None:
    command = f"{sys.executable} -m tunnelswitch_lab.workload.probe --host 127.0.0.1 --out {tmp_path}/no/trace"
    result = subprocess.run(command.split(), capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("probe: ")
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    with pytest.raises(TraceError, match="is not a trace"):
        list(read_trace(path))
    assert read_trace_summary(path) == {}
