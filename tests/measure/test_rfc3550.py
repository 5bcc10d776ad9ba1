"""RFC 3550 statistics: the appendix's rules one by one, and the same figures as tshark on one capture."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tunnelswitch_lab.measure.gaps import largest_gap
from tunnelswitch_lab.measure.pcap import PcapWriter, build_udp_frame, read_udp
from tunnelswitch_lab.measure.rfc3550 import MAX_DROPOUT, Outcome, Reception
from tunnelswitch_lab.measure.tshark import TsharkError, parse_streams, rtp_streams
from tunnelswitch_lab.workload.packets import RtpPacket, build_rtp, parse_rtp

SERVICE, CALLER = ("192.168.77.10", 5004), ("192.168.77.1", 40000)
START_NS = 1_700_000_000_000_000_000


def feed(reception: Reception, numbers: list[int]) -> list[Outcome]:
    return [reception.receive(n % 65536, n * 160 % 2**32, n * 0.02).outcome for n in numbers]


def test_a_source_is_believed_after_two_packets_in_sequence() -> None:
    reception = Reception(8000)
    assert feed(reception, [10, 50, 51, 52]) == [
        Outcome.PROBATION,
        Outcome.PROBATION,
        Outcome.FIRST,
        Outcome.IN_ORDER,
    ]
    assert (reception.received, reception.expected, reception.lost) == (2, 2, 0)


def test_loss_and_wrap_around() -> None:
    reception = Reception(8000, min_sequential=1)
    feed(reception, [65533, 65534, 65536, 65538])
    assert reception.extended_highest == 65538
    assert (reception.expected, reception.received, reception.lost) == (6, 4, 2)


def test_a_late_packet_across_the_wrap_keeps_its_number() -> None:
    reception = Reception(8000, min_sequential=1)
    feed(reception, [65535, 65537])
    late = reception.receive(0, 0, 1.0)
    assert (late.outcome, late.extended_sequence) == (Outcome.LATE, 65536)
    assert reception.receive(65535, 0, 1.0).extended_sequence == 65535
    assert reception.lost == -1, "one duplicate, nothing lost"


def test_two_packets_after_a_big_jump_are_a_restart() -> None:
    reception = Reception(8000, min_sequential=1)
    outcomes = feed(reception, [1, 2, 30_000, 30_001, 30_002])
    assert outcomes[2:] == [Outcome.JUMP, Outcome.RESTART, Outcome.IN_ORDER]
    assert (reception.restarts, reception.expected, reception.lost) == (1, 2, 0)


def test_one_wild_packet_changes_nothing() -> None:
    reception = Reception(8000, min_sequential=1)
    assert feed(reception, [1, 2, 2 + MAX_DROPOUT, 3])[2:] == [Outcome.JUMP, Outcome.IN_ORDER]
    assert (reception.lost, reception.restarts) == (0, 0)


def test_jitter_by_hand() -> None:
    reception = Reception(8000, min_sequential=1)
    reception.receive(0, 0, 0.0)
    first = reception.receive(1, 160, 0.036)
    assert first.difference_seconds == pytest.approx(0.016)
    assert first.jitter_seconds == pytest.approx(0.001)
    second = reception.receive(2, 320, 0.040)
    assert second.difference_seconds == pytest.approx(-0.016)
    assert second.jitter_seconds == pytest.approx(0.001 + (0.016 - 0.001) / 16)


def test_an_outage_with_a_running_clock_is_no_jitter() -> None:
    reception = Reception(8000, min_sequential=1)
    feed(reception, [0, 1, 2, 60, 61])
    assert reception.jitter_max_seconds == pytest.approx(0, abs=1e-9)
    assert reception.lost == 57


@given(st.integers(0, 2**32), st.lists(st.integers(1, 50), min_size=1, max_size=200))
def test_extended_numbers_never_wrap_and_loss_is_exact(start: int, steps: list[int]) -> None:
    reception = Reception(8000, min_sequential=1)
    number = start
    reception.receive(start % 65536, 0, 0.0)
    offset = start - start % 65536
    for step in steps:
        number += step
        packet = reception.receive(number % 65536, number * 160 % 2**32, number * 0.02)
        assert packet.extended_sequence == number - offset
    assert reception.expected == number - start + 1
    assert reception.lost == number - start - len(steps)


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 2**32 - 1)), max_size=60))
def test_any_numbers_are_accepted(packets: list[tuple[int, int]]) -> None:
    reception = Reception(8000)
    for index, (sequence, timestamp) in enumerate(packets):
        reception.receive(sequence, timestamp, index * 0.02)
    assert reception.received <= len(packets)
    assert reception.jitter_seconds >= 0


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Reception(0)


def write_capture(path: Path, seed: int) -> None:
    """Twenty seconds of a call with loss, jitter, reordering, an outage and a wrap of the sequence number.

    Nothing is lost or reordered at the begin and at the wrap, where tshark 4.0 takes a late packet for another cycle,
    nor at the end, where it counts only up to the packet that came last.
    """
    rng = random.Random(seed)
    arrivals = []
    for number in range(1000):
        calm = number < 5 or abs(number - 536) < 5 or number >= 990
        if (rng.random() < 0.02 and not calm) or 400 <= number < 420:
            continue
        delay_ns = rng.randrange(50_000_000) if rng.random() < 0.03 and not calm else rng.randrange(8_000_000)
        arrivals.append((START_NS + number * 20_000_000 + delay_ns, number))
    with PcapWriter(path) as pcap:
        for time_ns, number in sorted(arrivals):
            packet = RtpPacket((65_000 + number) % 65536, number * 160, 0x7057, 0)
            pcap.write(time_ns, build_udp_frame(SERVICE, CALLER, build_rtp(packet)))


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
@example(seed=5006)
def test_tshark_agrees(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("capture") / "call.pcap"
    write_capture(path, seed)
    [oracle] = rtp_streams(path, 5004)
    reception, times, total = Reception(8000, min_sequential=1), [], 0.0
    for datagram in read_udp(path):
        packet = parse_rtp(datagram.payload)
        assert packet is not None
        times.append((datagram.time_ns - START_NS) / 1e9)
        total += reception.receive(packet.sequence, packet.timestamp, times[-1]).jitter_seconds
    gap = largest_gap(times)
    assert gap is not None
    assert (oracle.source, oracle.destination, oracle.ssrc) == (SERVICE, CALLER, 0x7057)
    assert oracle.packets == reception.received
    assert oracle.lost == reception.lost
    assert oracle.max_jitter_seconds * 1000 == pytest.approx(reception.jitter_max_seconds * 1000, abs=0.0011)
    assert oracle.max_delta_seconds * 1000 == pytest.approx(gap.length_seconds * 1000, abs=0.0011)
    assert oracle.mean_jitter_seconds * 1000 == pytest.approx(total / (len(times) - 1) * 1000, abs=0.0011)


def test_tshark_on_rubbish_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "rubbish.pcap"
    path.write_bytes(b"not a capture")
    with pytest.raises(TsharkError, match=r"tshark on .*rubbish"):
        rtp_streams(path, 5004)
    with pytest.raises(TsharkError, match="no table"):
        parse_streams("something else")


def test_rows_of_older_tshark_versions() -> None:
    row = "192.168.77.10  5004    192.168.77.1 40000 0x00007057 g711U   965    35 (3.5%)  426.536  8.573  3.321 X"
    [report] = parse_streams(f"=== RTP Streams ===\n  0.000000  19.9  {row}\n===\n")
    assert (report.max_delta_seconds, report.max_jitter_seconds) == (0.426536, 0.008573)
