"""A real SIP call, captured: sipp calls, sipp answers, and another sipp that never heard of the call takes over."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tunnelswitch_lab.measure.call import Call, compare, disagreements, hung_up, read_call
from tunnelswitch_lab.sip_call import caller
from tunnelswitch_lab.sip_service import HERE
from tunnelswitch_lab.workload.packets import PACKET_SPACING_SECONDS

HOST, CALLER = "127.53.7.1", "127.53.7.2"
SIP_PORT, RTP_PORT = 15060, 15004
SERVICE = (HOST, RTP_PORT)
WAIT_SECONDS = 20.0


@contextmanager
def running(command: Sequence[object], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen([str(word) for word in command], stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT_SECONDS)


def answering(directory: Path, role: str) -> list[object]:
    directory.mkdir(exist_ok=True)
    return [HERE / "answer", directory, role, HOST, SIP_PORT, RTP_PORT]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def wait_for_talk(out: Path) -> None:
    """Until so much of a call has been recorded."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        with contextlib.suppress(ValueError):  # none of it yet
            if len(read_call(out, SERVICE).packets) > 50:
                return
        assert time.monotonic() < deadline, "nobody talks"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of a call; after one or two the one who answered it is killed, and another one takes its place."""
    directory = tmp_path_factory.mktemp("call")
    out, log = directory / "client.pcap", directory / "log"
    recorder = [sys.executable, "-m", "tunnelswitch_lab.measure.capture", "--dev", "lo", "--received-only"]
    recorder += ["--port", str(RTP_PORT), "--port", str(SIP_PORT), "--out", str(out)]
    with running(recorder, log), running(answering(directory / "first", "active"), log) as first:
        wait_for(out)
        wait_for(directory / "first/service.identity")
        time.sleep(0.5)
        with running(caller(directory, CALLER, HOST, 4, SIP_PORT), log) as calling:
            wait_for_talk(out)
            first.kill()
            first.wait()
            time.sleep(0.3)
            with running(answering(directory / "second", "standby"), log):
                calling.wait(WAIT_SECONDS)
                time.sleep(0.6)  # the recorder writes twice a second
    return out


def test_the_figures_are_tsharks(capture: Path) -> None:
    call = read_call(capture, SERVICE)
    assert disagreements(call, capture, SERVICE) == []
    compared = compare(call, capture, SERVICE)
    assert [one.what for one in compared] == [
        "packets",
        "lost packets",
        "largest spacing",
        "mean jitter",
        "largest jitter",
    ]
    assert all(one.agrees for one in compared)
    assert compared[1].ours == compared[1].theirs == call.lost
    assert call.lost >= 14, "300 ms without anybody, and the time that a start takes"
    assert call.outage_seconds >= 0.3 - PACKET_SPACING_SECONDS
    assert len(call.packets) + call.lost == call.packets[-1].sequence - call.packets[0].sequence + 1
    assert call.packets[0].jitter_seconds == 0.0
    before, after = call.packets[10:12]
    assert after.jitter_seconds == pytest.approx(
        before.jitter_seconds + (abs(after.difference_seconds) - before.jitter_seconds) / 16
    )


def test_other_figures_are_told(capture: Path) -> None:
    call = read_call(capture, SERVICE)
    shaken = [replace(packet, jitter_seconds=packet.jitter_seconds + 2e-6) for packet in call.packets]
    told = disagreements(Call(shaken, call.lost + 1), capture, SERVICE)
    assert [line.partition(":")[0] for line in told] == ["lost packets", "mean jitter", "largest jitter"]
    assert disagreements(call, capture, (HOST, SIP_PORT)) == ["tshark sees 0 streams from the service, not one"]
    with pytest.raises(ValueError, match="holds no RTP from"):
        read_call(capture, (CALLER, 9))


def test_the_other_copy_confirms_the_end_of_a_call_that_it_never_heard_of(capture: Path) -> None:
    assert hung_up(capture, HOST)
    assert not hung_up(capture, "127.53.7.9")
