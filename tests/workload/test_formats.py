"""Wire formats and state: what goes in comes out, and nothing else is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch_lab.workload import packets
from tunnelswitch_lab.workload.checkpoints import (
    MAX_BODY_BYTES,
    Checkpoint,
    FrameError,
    FrameReader,
    build_acknowledgement,
    build_checkpoint,
)
from tunnelswitch_lab.workload.pacing import Lateness, Pace
from tunnelswitch_lab.workload.rtp_client import RtpTalk
from tunnelswitch_lab.workload.state import MAX_CLIENTS, ServiceState, StateError

WORD = st.integers(0, 2**32 - 1)
LONG = st.integers(0, 2**63)
STATES = st.builds(ServiceState, LONG, LONG, st.dictionaries(WORD, LONG, max_size=20))
ME = packets.Identity("alpha", b"12345678")


@given(st.integers(0, 65535), WORD, WORD, st.integers(0, 71), st.booleans(), LONG, LONG)
def test_a_reply_echoes_the_header_and_carries_identity_and_state(
    sequence: int, timestamp: int, ssrc: int, payload_type: int, marker: bool, total: int, mine: int
) -> None:
    request = packets.RtpPacket(sequence, timestamp, ssrc, payload_type, marker)
    data = packets.build_rtp_reply(request, ME, total, mine)
    assert len(data) == 12 + packets.PAYLOAD_BYTES
    assert packets.parse_rtp_reply(data) == (request, packets.Reply(total, mine, ME.run, "alpha"))
    assert packets.is_reply(data)
    assert not packets.is_reply(packets.build_rtp(request))


@given(st.binary(max_size=300))
def test_no_bytes_break_the_parsers(data: bytes) -> None:
    packets.parse_rtp(data)
    packets.parse_rtp_reply(data)
    packets.parse_probe(data)
    packets.parse_probe_reply(data)
    packets.is_reply(data)


@given(LONG, LONG, LONG)
def test_probe_and_echo(sequence: int, sent_ns: int, counter: int) -> None:
    assert packets.parse_probe(packets.build_probe(sequence, sent_ns)) == (sequence, sent_ns)
    echo = packets.parse_probe_reply(packets.build_probe_reply(sequence, sent_ns, ME, counter))
    assert echo == packets.ProbeReply(sequence, sent_ns, packets.Reply(counter, 0, ME.run, "alpha"))


def test_identities_that_do_not_fit_the_packet_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 16 bytes"):
        packets.Identity("x" * 17, b"12345678")
    with pytest.raises(ValueError, match="8 bytes"):
        packets.Identity("x", b"1")


@given(STATES)
def test_state_survives_the_copy(state: ServiceState) -> None:
    assert ServiceState.load(state.dump()) == state


@given(st.binary(max_size=100))
def test_only_whole_states_load(data: bytes) -> None:
    try:
        state = ServiceState.load(data)
    except StateError:
        return
    assert len(state.dump()) <= len(data)


def test_clients_beyond_the_limit_count_only_in_the_total() -> None:
    state = ServiceState()
    for ssrc in range(MAX_CLIENTS + 5):
        state.count_packet(ssrc)
    assert state.count_packet(0) == (MAX_CLIENTS + 6, 2)
    assert len(state.clients) == MAX_CLIENTS
    assert ServiceState.load(state.dump()) == state


@given(st.lists(STATES, max_size=4), st.integers(1, 64))
def test_frames_arrive_whole_however_the_stream_is_cut(states: list[ServiceState], size: int) -> None:
    stream = b""
    for number, state in enumerate(states):
        stream += build_checkpoint(number, ME.run, 0.5, state.dump()) + build_acknowledgement(number)
    reader = FrameReader()
    frames = [f for start in range(0, len(stream), size) for f in reader.feed(stream[start : start + size])]
    checkpoints = [frame for frame in frames if isinstance(frame, Checkpoint)]
    assert [frame.state for frame in checkpoints] == states
    assert all(frame.run == ME.run and frame.pause_seconds == 0.5 for frame in checkpoints)
    assert [frame for frame in frames if isinstance(frame, int)] == list(range(len(states)))


@given(st.binary(min_size=17, max_size=200))
def test_a_stream_that_is_no_checkpoints_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(FrameError):
        list(FrameReader().feed(b"GET" + data))


def test_a_frame_that_claims_too_much_is_refused_before_it_is_read() -> None:
    header = b"TSWK\x01" + bytes(8) + (MAX_BODY_BYTES + 1).to_bytes(4, "big")
    with pytest.raises(FrameError, match="longer than"):
        list(FrameReader().feed(header))


def test_the_callers_numbers_do_not_wrap() -> None:
    talk = RtpTalk(7)
    data = talk.build(65_540, 0)
    packet = packets.parse_rtp(data)
    assert packet is not None
    assert packet.sequence == 4
    reply = talk.parse(packets.build_rtp_reply(packet, ME, 1, 1))
    assert reply is not None
    assert reply[0] == 65_540
    late = packets.RtpPacket(65_535, 0, 7, 0)
    before = talk.parse(packets.build_rtp_reply(late, ME, 1, 1))
    assert before is not None
    assert before[0] == 65_535
    assert talk.parse(packets.build_rtp_reply(packets.RtpPacket(4, 0, 8, 0), ME, 1, 1)) is None


@given(st.lists(st.floats(0, 0.15), min_size=1, max_size=50))
def test_lateness_quantiles_are_within_a_bin(values: list[float]) -> None:
    lateness = Lateness()
    for value in values:
        lateness.add(value)
    assert lateness.max_seconds == max(values)
    assert lateness.quantile_seconds(1.0) <= max(values)
    assert lateness.quantile_seconds(1.0) >= max(values) - 0.0001 - 1e-9
    assert lateness.quantile_seconds(0.5) <= sorted(values)[(len(values) - 1) // 2] + 0.0001 + 1e-9


def test_a_long_stall_is_skipped_not_sent_in_a_burst() -> None:
    pace = Pace(0.001, 100.0)
    assert not pace.take(99.9)
    assert pace.take(100.0)
    assert pace.take(103.0)
    assert pace.skipped == pytest.approx(2999, abs=2)
    assert pace.deadline == pytest.approx(103.0, abs=0.002)
