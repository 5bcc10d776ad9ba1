"""The judge on captures written by hand: it passes what is right, and fails what must never be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tunnelswitch_lab.faults import Verdict
from tunnelswitch_lab.matrix.cases import MOVES, Clients, Expected
from tunnelswitch_lab.matrix.judging import Judgement, Move, Seen, epochs, judge, moves
from tunnelswitch_lab.matrix.packets import read_exchange
from tunnelswitch_lab.measure.events import BusEvent
from tunnelswitch_lab.measure.pcap import PcapWriter, build_udp_frame
from tunnelswitch_lab.measure.runs import CAPTURE, PROBE_TRACE
from tunnelswitch_lab.workload.packets import Identity, RtpPacket, build_rtp, build_rtp_reply
from tunnelswitch_lab.workload.trace import TraceWriter

SERVICE, CALLER = ("192.168.77.10", 5004), ("192.168.77.1", 40000)
FAULT_AT = 1_700_000_002.0
BEGIN_MS, END_MS = -2000, 4000
OLD, NEW, REBORN = (
    Identity("primary", b"oldoldol"),
    Identity("secondary", b"newnewne"),
    Identity("primary", b"rebornre"),
)
MOVED = Expected(Verdict.PROOF, MOVES, Clients.INTERRUPTED)
PROOF = (Move(2, "secondary", "proof"),)


@dataclass(frozen=True)
class Stretch:
    """A copy answers from one millisecond after the fault to another."""

    copy: Identity
    begin_ms: int
    end_ms: int


CALM = (Stretch(OLD, BEGIN_MS, END_MS),)
FAILOVER = (Stretch(OLD, BEGIN_MS, 0), Stretch(NEW, 50, END_MS))


def captured(directory: Path, *stretches: Stretch) -> Any:
    """What a client captured that asked every 20 ms, and every millisecond with its probe."""
    with PcapWriter(directory / CAPTURE) as pcap, TraceWriter(directory / PROBE_TRACE) as trace:
        for at_ms in range(BEGIN_MS, END_MS):
            number = at_ms - BEGIN_MS
            sent_ns = round(FAULT_AT * 1000 + at_ms) * 1_000_000
            request = RtpPacket(number // 20, number * 8, 0x7057, 0)
            copies = [s.copy for s in stretches if s.begin_ms <= at_ms < s.end_ms]
            if number % 20 == 0:
                pcap.write(sent_ns, build_udp_frame(CALLER, SERVICE, build_rtp(request)))
            for order, copy in enumerate(copies, 1):
                if number % 20 == 0:
                    frame = build_udp_frame(SERVICE, CALLER, build_rtp_reply(request, copy, number, number))
                    pcap.write(sent_ns + order * 100_000, frame)
                trace.received(number, sent_ns, sent_ns + order * 100_000, number, copy.run, copy.site)
    return read_exchange(directory, SERVICE, FAULT_AT)


def judged(directory: Path, expected: Expected, *stretches: Stretch, **facts: Any) -> Judgement:
    tunnel = "t2-pbx" if expected.copies[-1] == "primary" else "t3-pbx"
    known: dict[str, Any] = {"tunnels": [tunnel], **facts}
    return judge(expected, Seen(captured(directory, *stretches), END_MS / 1000, **known))


def test_a_calm_that_stays_calm_passes(tmp_path: Path) -> None:
    calm = judged(tmp_path, Expected(), *CALM)
    assert calm.problems == []
    assert (calm.verdict, calm.unanswered, calm.downtime_seconds) == ("none", 0, pytest.approx(0.0, abs=2e-3))
    assert [stretch.site for stretch in calm.served] == ["primary"]


def test_a_failover_passes_and_tells_who_served_when(tmp_path: Path) -> None:
    moved = judged(tmp_path, MOVED, *FAILOVER, moves=PROOF)
    assert moved.problems == []
    assert moved.downtime_seconds == pytest.approx(0.050, abs=2e-3)
    assert moved.unanswered == 3
    old, new = moved.served
    assert (old.site, new.site) == ("primary", "secondary")
    assert old.last_at < 0.001
    assert new.first_at == pytest.approx(0.050, abs=1e-3)


def test_two_copies_that_answer_at_once_fail(tmp_path: Path) -> None:
    both = judged(tmp_path, MOVED, Stretch(OLD, BEGIN_MS, 60), Stretch(NEW, 50, END_MS), moves=PROOF)
    assert any("answered by two copies" in problem for problem in both.problems)


def test_one_millisecond_with_two_copies_is_seen_by_the_probe(tmp_path: Path) -> None:
    both = judged(tmp_path, MOVED, Stretch(OLD, BEGIN_MS, 46), Stretch(NEW, 45, END_MS), moves=PROOF)
    where = "probe packet 2045 by run 6e65776e65776e65 at secondary, +0.045 s"
    assert both.problems == [f"I3: requests answered by two copies: 1, first {where}"]


def test_an_old_copy_that_answers_again_fails(tmp_path: Path) -> None:
    back = (Stretch(OLD, BEGIN_MS, 0), Stretch(NEW, 50, 2000), Stretch(OLD, 2000, 2005), Stretch(NEW, 2005, END_MS))
    problems = judged(tmp_path, MOVED, *back, moves=PROOF).problems
    assert problems[0].startswith("I3: answers of a copy that had been replaced: 6, first ")


def test_a_new_start_of_the_old_site_is_no_old_copy_but_an_unexpected_one(tmp_path: Path) -> None:
    back = (*FAILOVER[:1], Stretch(NEW, 50, 2000), Stretch(REBORN, 2100, END_MS))
    again = (*PROOF, Move(3, "primary", "proof"))
    problems = judged(tmp_path, MOVED, *back, moves=again).problems
    assert not any(problem.startswith("I3") for problem in problems)
    assert problems == [
        "answers came from primary, then secondary, then primary; expected primary, then secondary",
        "verdict proof, proof, expected proof",
        "the last record names primary, expected secondary",
    ]


def test_a_move_that_nobody_expects_fails(tmp_path: Path) -> None:
    problems = judged(
        tmp_path, replace(MOVED, verdict=Verdict.NONE, copies=("primary",)), *FAILOVER, moves=PROOF
    ).problems
    assert "answers came from primary, then secondary; expected primary" in problems
    assert "verdict proof, expected none" in problems


def test_a_move_that_does_not_come_fails(tmp_path: Path) -> None:
    problems = judged(tmp_path, MOVED, *CALM).problems
    assert "answers came from primary; expected primary, then secondary" in problems
    assert "verdict none, expected proof" in problems


def test_another_reason_fails(tmp_path: Path) -> None:
    problems = judged(tmp_path, MOVED, *FAILOVER, moves=(Move(2, "secondary", "cut_off"),)).problems
    assert problems == ["verdict cut-off, expected proof"]


def test_another_reason_that_is_as_good_passes(tmp_path: Path) -> None:
    either = replace(MOVED, another=Verdict.CUT_OFF)
    assert judged(tmp_path, either, *FAILOVER, moves=(Move(2, "secondary", "cut_off"),)).problems == []
    assert judged(tmp_path, either, *FAILOVER, moves=(Move(2, "secondary", "suspicion"),)).problems == [
        "verdict suspicion, expected proof or cut-off"
    ]


def test_silence_fails_unless_nobody_is_left_who_may_serve(tmp_path: Path) -> None:
    silent = (Stretch(OLD, BEGIN_MS, 0),)
    interrupted, unserved = Expected(clients=Clients.INTERRUPTED), Expected(clients=Clients.UNSERVED)
    assert judged(tmp_path, interrupted, *silent).problems == ["nobody answers in the last 4.0 s"]
    assert judged(tmp_path, unserved, *silent).problems == []
    assert judged(tmp_path, unserved, *silent).downtime_seconds == pytest.approx(4.0, abs=2e-3)
    assert judged(tmp_path, unserved, *CALM).problems == ["somebody still answers, 0.0 s before the end"]
    assert judged(tmp_path, interrupted).problems[0] == "the client never got an answer"


def test_clients_that_may_notice_nothing_lose_no_packet(tmp_path: Path) -> None:
    blip = (Stretch(OLD, BEGIN_MS, 995), Stretch(OLD, 1030, END_MS))
    assert judged(tmp_path, Expected(), *blip).problems == ["the call lost 2 packets; it may lose none"]
    assert judged(tmp_path, Expected(clients=Clients.INTERRUPTED), *blip).problems == []


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"tunnels": ["t2-pbx", "t3-pbx"]}, "client tunnels at the gateway: t2-pbx, t3-pbx; expected one t2"),
        ({"tunnels": []}, "client tunnels at the gateway: none; expected one t2"),
        ({"tunnels": ["t3-pbx"]}, "client tunnels at the gateway: t3-pbx; expected one t2"),
        ({"ended": ["agent-gateway"]}, "agent-gateway ended, and nobody killed it"),
        ({"words": "x\nTraceback (most recent call last):\n"}, "a program logged a traceback"),
        ({"capture_dropped": 3}, "the capture lost 3 packets: what it shows is not sound"),
    ],
)
def test_what_else_must_hold(tmp_path: Path, facts: dict[str, Any], problem: str) -> None:
    assert judged(tmp_path, Expected(), *CALM, **facts).problems == [problem]


def test_what_must_be_said_is_looked_for(tmp_path: Path) -> None:
    expected = Expected(says="no heartbeats from primary")
    assert judged(tmp_path, expected, *CALM, words="alarm: no heartbeats from primary while").problems == []
    assert judged(tmp_path, expected, *CALM).problems == ["nobody says 'no heartbeats from primary'"]


def record(at: float, epoch: int, minor: int, active: str, reason: str) -> BusEvent:
    stamp = {"epoch": epoch, "decision_id": "gateway.1", "minor": minor}
    data = {"record": {"stamp": stamp, "active": active, "reason": reason}}
    return BusEvent(at, at, "tsw.v1.lab.epoch.gateway", "epoch", "gateway", data)


def test_moves_are_told_once_for_each_epoch_with_the_reason_of_the_move() -> None:
    said = [
        record(1, 1, 1, "primary", "protection"),
        record(2, 2, 0, "secondary", "suspicion"),
        record(2, 2, 0, "secondary", "suspicion"),
        record(3, 2, 1, "secondary", "protection"),
        record(4, 3, 0, "secondary", "recovery"),
    ]
    assert moves(said, "primary") == [Move(2, "secondary", "suspicion")]
    assert moves(said[3:], "primary") == [Move(2, "secondary", "unknown")]
    beat = BusEvent(5, 5, "tsw.v1.lab.heartbeat.primary", "heartbeat", "primary", {"marks": {"voip": "4.0-x"}})
    assert epochs([*said, beat]) == [1, 2, 3, 4]
