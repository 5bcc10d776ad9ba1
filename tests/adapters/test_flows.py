"""Flows, loss, jitter and answers, from packets in virtual time."""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch.core.events import ClientsSeen
from tunnelswitch.core.facts import Traffic
from tunnelswitch.core.flows import FlowLimits, Flows

MS = 1_000_000
START_NS = 1_800_000_000 * 1_000_000_000
SERVICE, CLIENT = "192.168.77.10", "192.168.77.99"
UDP, TCP, ICMP = 17, 6, 1


def ip(source: str, target: str, protocol: int, rest: bytes, fragment: int = 0) -> bytes:
    addresses = b"".join(bytes(map(int, one.split("."))) for one in (source, target))
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(rest), 0, fragment, 64, protocol, 0) + addresses + rest


def udp(source: str, target: str, payload: bytes = b"TSWP", port: int = 5004) -> bytes:
    return ip(source, target, UDP, struct.pack("!HHHH", 5004, port, 8 + len(payload), 0) + payload)


def rtp(sequence: int, timestamp: int, kind: int = 0, ssrc: int = 7) -> bytes:
    header = struct.pack("!BBHII", 0x80, kind, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc)
    return udp(SERVICE, CLIENT, header + bytes(160))


def tcp(flags: int, payload: bytes = b"") -> bytes:
    return ip(CLIENT, SERVICE, TCP, struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 0x50, flags, 9, 0, 0) + payload)


def new(**limits: float) -> Flows:
    return Flows("gateway", {"pbx": SERVICE}, FlowLimits(**limits))  # type: ignore[arg-type]


def feed(flows: Flows, packets: list[tuple[int, bytes]]) -> list[Traffic]:
    return [fact for at, data in packets if (fact := flows.packet(START_NS + at, data)) is not None]


def probes(times_ns: list[int]) -> list[tuple[int, bytes]]:
    return [(at, udp(SERVICE, CLIENT)) for at in times_ns]


def test_a_gap_in_a_regular_flow_is_told_once_with_its_figures() -> None:
    times = [*range(0, 100 * MS, MS), *range(160 * MS, 200 * MS, MS)]
    (fact,) = feed(new(), probes(times))
    assert fact.service == "pbx"
    assert fact.flow == f"udp {SERVICE}:5004 > {CLIENT}:5004"
    assert fact.gap_seconds == pytest.approx(0.061)
    assert fact.downtime_seconds == pytest.approx(0.060)
    assert fact.nominal_spacing_seconds == pytest.approx(0.001)
    assert fact.lost_packets == 60
    assert fact.gap_ended_at - fact.gap_started_at == pytest.approx(0.061, abs=1e-6)


def test_two_spacings_or_15_ms_are_no_gap() -> None:
    assert feed(new(), probes([*range(0, 100 * MS, MS), 99 * MS + 15 * MS])) == []
    assert feed(new(), probes([*range(0, 1000 * MS, 20 * MS), 980 * MS + 40 * MS])) == []
    assert len(feed(new(), probes([*range(0, 1000 * MS, 20 * MS), 980 * MS + 41 * MS]))) == 1


def test_packets_in_bursts_keep_their_true_rate() -> None:
    bursts = [start + step for start in range(0, 400 * MS, 10 * MS) for step in range(0, 10_000, 1000)]
    (fact,) = feed(new(), probes([*bursts, bursts[-1] + 50 * MS]))
    assert fact.nominal_spacing_seconds == pytest.approx(0.001, rel=0.3)
    assert fact.lost_packets < 100


def test_an_irregular_dialogue_has_no_downtime() -> None:
    times = list(accumulate([1 * MS, 3 * MS, 2 * MS, 900 * MS] * 30))
    assert feed(new(), probes(times)) == []


def test_a_call_that_begins_long_after_another_is_no_downtime() -> None:
    times = [*range(0, 100 * MS, MS), *range(400_000 * MS, 400_100 * MS, MS)]
    assert feed(new(), probes(times)) == []


def test_rtp_loss_comes_from_the_sequence_across_its_wrap() -> None:
    packets = [(n * 20 * MS, rtp(65500 + n, n * 160)) for n in range(100) if not 30 <= n < 55]
    (fact,) = feed(new(), packets)
    assert fact.lost_packets == 25
    assert fact.gap_seconds == pytest.approx(0.52)
    assert fact.jitter_max_seconds == pytest.approx(0.0, abs=1e-6)


def test_jitter_is_rfc_3550() -> None:
    """The example is worked by hand: J += (|D| - J) / 16 with D from arrival and timestamp."""
    late_ms = [0, 5, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0]
    packets = [((n * 20 + late) * MS, rtp(n, n * 160)) for n, late in enumerate(late_ms)]
    jitter, largest = 0.0, 0.0
    for before, after in pairwise(late_ms[1:]):  # the first packet only announces the source
        jitter += (abs(after - before) / 1000 - jitter) / 16
        largest = max(largest, jitter)
    packets.append(((11 * 20 + 200) * MS, rtp(12, 12 * 160)))
    (fact,) = feed(new(), packets)
    assert fact.jitter_max_seconds == pytest.approx(max(largest, jitter + (0.18 - jitter) / 16), rel=1e-3)


def test_the_clock_of_a_dynamic_payload_type_is_guessed() -> None:
    packets = [(n * 20 * MS, rtp(n, n * 960, kind=111)) for n in range(100)]
    packets.append((100 * 20 * MS + 200 * MS, rtp(100, 100 * 960, kind=111)))
    (fact,) = feed(new(), packets)
    assert fact.jitter_max_seconds == pytest.approx(0.2 / 16, rel=0.01)


def test_what_a_sender_that_starts_again_left_out_is_told_from_the_spacing() -> None:
    packets = [(n * 20 * MS, rtp(30000 + n, n * 160)) for n in range(50)]
    packets += [(1500 * MS + n * 20 * MS, rtp(n, n * 160)) for n in range(5)]
    (fact,) = feed(new(), packets)
    assert fact.lost_packets == 25


def test_one_missing_packet_is_a_gap_and_one_late_packet_is_none() -> None:
    """A failover of 25 ms costs a call one packet or two: it must not be a matter of jitter whether it shows."""
    spacing = 20 * MS
    talk = [(n * spacing, rtp(n, n * 160)) for n in range(50)]
    missing = [*talk, (51 * spacing - 3 * MS, rtp(51, 51 * 160))]
    late = [*talk, (50 * spacing + 17 * MS, rtp(50, 50 * 160))]
    (fact,) = feed(new(), missing)
    assert fact.lost_packets == 1
    assert fact.gap_seconds == pytest.approx(0.037)
    assert feed(new(), late) == []


def test_an_uneven_line_does_not_hide_a_gap_with_packets_missing() -> None:
    at, packets = 0, []
    for n in range(60):
        at += (20 if n % 4 else 36) * MS
        packets.append((at, rtp(n, n * 160)))
    packets.append((at + 62 * MS, rtp(62, 62 * 160)))
    (fact,) = feed(new(), packets)
    assert fact.lost_packets == 2


def test_a_machine_that_stops_for_every_checkpoint_still_shows_its_failover() -> None:
    """Every fifth answer waits for a checkpoint, the others follow it: gaps are not rare, but this one is longer."""
    at, packets = 0, []
    for n in range(80):
        at += (55, 1, 8, 18, 18)[n % 5] * MS
        packets.append((at, rtp(n, n * 160)))
    at_first = feed(new(), packets)
    assert len(at_first) <= 2, "until it is known that this flow is like that"
    *before, fact = feed(new(), [*packets, (at + 104 * MS, rtp(83, 83 * 160))])
    assert before == at_first
    assert fact.gap_seconds == pytest.approx(0.104)


@given(
    spacing_ms=st.integers(1, 40),
    before=st.integers(20, 200),
    lost=st.integers(0, 500),
    first=st.integers(0, 65535),
)
def test_a_cut_of_any_length_is_measured_to_the_spacing(spacing_ms: int, before: int, lost: int, first: int) -> None:
    spacing = spacing_ms * MS
    kept = [*range(before), *range(before + lost, before + lost + 20)]
    facts = feed(new(), [(n * spacing, rtp(first + n, n * spacing_ms * 8)) for n in kept])
    gap = (lost + 1) * spacing
    if lost and gap > 15 * MS:
        (fact,) = facts
        assert fact.lost_packets == lost
        assert fact.downtime_seconds == pytest.approx(lost * spacing / 1e9, abs=1e-6)
    else:
        assert facts == []


@given(st.lists(st.tuples(st.integers(-5 * MS, 400 * MS), st.binary(max_size=60)), max_size=60))
def test_no_bytes_upset_it(packets: list[tuple[int, bytes]]) -> None:
    flows, at = new(), START_NS
    for step, noise in packets:
        at += step
        flows.packet(at, noise)
        flows.packet(at, ip(SERVICE, CLIENT, UDP, noise))
        flows.packet(at, ip(CLIENT, SERVICE, TCP, noise))
        flows.unanswered(at)


@given(st.lists(st.integers(1, 65535), min_size=1, max_size=200))
def test_the_number_of_flows_is_bounded(ports: list[int]) -> None:
    flows = new(flows=8)
    for n, port in enumerate(ports):
        flows.packet(START_NS + n, udp(SERVICE, CLIENT, port=port))
        assert len(flows) <= 8


def asking(flows: Flows, times_ms: range, data: bytes | None = None) -> list[ClientsSeen]:
    told = []
    for at in times_ms:
        flows.packet(START_NS + at * MS, data or udp(CLIENT, SERVICE))
        told += flows.unanswered(START_NS + at * MS)
    return told


def test_clients_without_an_answer_are_told_until_they_get_one() -> None:
    flows = new()
    told = asking(flows, range(0, 300, 20))
    assert [seen.unanswered_seconds for seen in told] == pytest.approx([n / 1000 for n in range(120, 300, 20)])
    flows.packet(START_NS + 300 * MS, udp(SERVICE, CLIENT))
    assert flows.unanswered(START_NS + 301 * MS) == [ClientsSeen("pbx", 0.0, answered=True)]
    assert flows.unanswered(START_NS + 302 * MS) == []


def test_one_packet_that_needs_no_answer_is_no_alarm() -> None:
    flows = new()
    flows.packet(START_NS, udp(CLIENT, SERVICE))
    assert [flows.unanswered(START_NS + at * MS) for at in (200, 900, 5000)] == [[], [], []]
    assert asking(flows, range(30_000, 30_100, 20)) == []


def test_clients_that_give_up_are_not_waiting() -> None:
    flows = new()
    asking(flows, range(0, 300, 20))
    assert flows.unanswered(START_NS + 1000 * MS) == [ClientsSeen("pbx", 0.28)]
    assert flows.unanswered(START_NS + 1300 * MS) == [ClientsSeen("pbx", 0.0)]
    assert asking(flows, range(2000, 2100, 20)) == [], "they ask again, and are not told to have been answered"
    flows.packet(START_NS + 2100 * MS, udp(SERVICE, CLIENT))
    assert flows.unanswered(START_NS + 2101 * MS) == [ClientsSeen("pbx", 0.0, answered=True)]
    flows.packet(START_NS + 2200 * MS, udp(SERVICE, CLIENT))
    assert flows.unanswered(START_NS + 2201 * MS) == []


@pytest.mark.parametrize(
    ("data", "asks"),
    [
        (udp(CLIENT, SERVICE, b"\r\n\r\n"), False),
        (udp(CLIENT, SERVICE, b""), False),
        (udp(CLIENT, SERVICE, b"\xff"), False),
        (udp(CLIENT, SERVICE, b"\r\n\r\n\r\n"), True),
        (tcp(0x10), False),
        (tcp(0x18, b"GET"), True),
        (tcp(0x02), True),
        (ip(CLIENT, SERVICE, ICMP, bytes([3, 3, 0, 0])), False),
    ],
)
def test_which_packets_want_an_answer(data: bytes, asks: bool) -> None:
    assert bool(asking(new(), range(0, 300, 20), data)) is asks


def test_after_forgetting_nothing_is_claimed() -> None:
    flows = new()
    feed(flows, probes(list(range(0, 100 * MS, MS))))
    asking(flows, range(100, 400, 20))
    flows.forget()
    assert flows.unanswered(START_NS + 400 * MS) == [ClientsSeen("pbx", 0.0)]
    assert feed(flows, probes([500 * MS])) == []
