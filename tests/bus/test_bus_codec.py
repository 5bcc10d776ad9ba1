"""Subjects, envelope and limits, without a server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch.bus import codec, limits, samples, subjects
from tunnelswitch.core import facts
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.errors import BadMessageError, BusError

SOURCE = "gateway/switcher"


def wire(message: object = samples.HEARTBEAT, **data: object) -> bytes:
    """An encoded message with some fields of `data` replaced."""
    envelope = json.loads(codec.encode(message, SOURCE, "1", samples.TIME))
    envelope["data"] |= data
    return json.dumps(envelope).encode()


def refused(payload: bytes) -> BadMessageError:
    with pytest.raises(BadMessageError) as caught:
        codec.decode(payload)
    assert "\n" not in caught.value.diagnostics()
    return caught.value


@pytest.mark.parametrize("message", samples.all_samples(), ids=lambda message: type(message).__name__)
def test_every_message_comes_back_as_it_was(message: object) -> None:
    envelope = codec.decode(codec.encode(message, SOURCE, "abc-1", samples.TIME))
    assert envelope == codec.Envelope(message, SOURCE, "abc-1", samples.TIME)
    assert type(envelope.message) is type(message)


def test_there_is_a_sample_of_every_kind() -> None:
    assert {type(message) for message in samples.all_samples()} == set(subjects.BY_TYPE)


def test_a_record_is_stored_the_same_way_every_time() -> None:
    payload = codec.encode_record(samples.RECORD)
    assert payload == codec.encode_record(samples.RECORD)
    assert codec.decode_record(payload) == samples.RECORD


def test_another_message_is_no_record() -> None:
    with pytest.raises(BadMessageError, match="found a heartbeat"):
        codec.decode_record(wire())


@pytest.mark.parametrize("payload", [b"", b"hello", b"\xff\xfe", b'{"type":', b"{'a': 1}", wire()[:-2]])
def test_what_is_not_json(payload: bytes) -> None:
    assert refused(payload).kind == "not_json"


def test_size_is_measured_before_anything_is_parsed() -> None:
    assert refused(b"[" * (limits.PAYLOAD_BYTES + 1)).kind == "too_large"
    assert refused(b"[" * limits.PAYLOAD_BYTES).kind in {"not_json", "invalid"}


@pytest.mark.parametrize(
    "payload",
    [
        wire().replace(b".v1.", b".v2."),
        b'{"type": "tunnelswitch.v2.heartbeat", "everything": "else is different"}',
        wire().replace(b'"specversion": "1.0"', b'"specversion": "2.0"'),
    ],
)
def test_another_version_is_named_as_such(payload: bytes) -> None:
    assert refused(payload).kind == "version"


@pytest.mark.parametrize("payload", [wire().replace(b"v1.heartbeat", b"v1.gossip"), b'{"type": "com.example.order"}'])
def test_an_unknown_type(payload: bytes) -> None:
    assert refused(payload).kind == "type"


@pytest.mark.parametrize(
    "payload",
    [
        b"null",
        b"[]",
        b"{}",
        wire(sequence="1"),
        wire(sequence=1.5),
        wire(sequence=-1),
        wire(sequence=2**53),
        wire(sequence=10**400 // 1),
        wire(interval_seconds=-0.1),
        wire(interval_seconds=None),
        wire(interval_seconds=1e300),
        wire(late=0),
        wire(site=None),
        wire(site="x" * 2000),
        wire(heard={"x" * 2000: ["a", 1]}),
        wire(heard={"primary": ["a"]}),
        wire(heard={str(i): ["a", 1] for i in range(limits.ENTRIES + 1)}),
        wire(marks={"voip": {"epoch": 1, "decision_id": "two words"}}),
        wire(marks={"voip": {"epoch": 10**15, "decision_id": "a"}}),
        wire(votes=[{"group": "voip"}]),
        wire(votes=[None]),
        wire(clients=[{"service": "pbx", "unanswered_seconds": 0}] * (limits.ENTRIES + 1)),
        wire(observations=[{"subject": "a", "path": "sideways", "path_seconds": 0, "bus": "alive", "bus_seconds": 0}]),
        wire().replace(b"0.0004", b"1e999"),
        wire().replace(b"Z", b""),
    ],
)
def test_what_does_not_fit(payload: bytes) -> None:
    assert refused(payload).kind == "invalid"


def test_nan_is_not_json() -> None:
    assert refused(wire(interval_seconds=math.nan)).kind == "not_json"


def test_unknown_fields_are_ignored() -> None:
    assert codec.decode(wire(invented="later", also={"a": [1]})).message == samples.HEARTBEAT


def test_nothing_is_sent_that_no_reader_would_take() -> None:
    for message in (
        dataclasses.replace(samples.HEARTBEAT, interval_seconds=math.nan),
        dataclasses.replace(samples.HEARTBEAT, interval_seconds=math.inf),
        dataclasses.replace(samples.HEARTBEAT, sequence=-1),
        dataclasses.replace(samples.HEARTBEAT, marks={"voip": Stamp(1, "")}),
        facts.PromoteFailed("a", "b", Stamp(1, "c"), "x" * 2000),
    ):
        with pytest.raises(BadMessageError) as caught:
            codec.encode(message, SOURCE, "1", samples.TIME)
        assert caught.value.kind == "invalid"
    seen = facts.Observation("x" * 1000, facts.Path.UP, 1.0, facts.Bus.ALIVE, 1.0)
    observations = (seen,) * (limits.PAYLOAD_BYTES // 1000)
    with pytest.raises(BadMessageError) as caught:
        codec.encode(dataclasses.replace(samples.HEARTBEAT, observations=observations), SOURCE, "1", samples.TIME)
    assert caught.value.kind == "too_large"


@given(st.binary(max_size=300))
def test_no_bytes_are_a_surprise(payload: bytes) -> None:
    refused(payload)


@given(st.integers(0, 1200), st.binary(min_size=1, max_size=8))
def test_no_damage_is_a_surprise(position: int, damage: bytes) -> None:
    payload = wire()
    with contextlib.suppress(BadMessageError):
        codec.decode(payload[:position] + damage + payload[position + len(damage) :])


def test_subjects() -> None:
    assert subjects.subject_of("lab", samples.HEARTBEAT) == "tsw.v1.lab.heartbeat.gateway"
    assert subjects.subject_of("lab", facts.Epoch(samples.RECORD)) == "tsw.v1.lab.epoch.voip"
    assert subjects.wildcard("lab", "promote_failed") == "tsw.v1.lab.promote_failed.*"


@pytest.mark.parametrize("name", ["", "a.b", "*", ">", "a b", "a\r\n", "é", "x" * 65])
def test_a_name_cannot_change_the_subjects_shape(name: str) -> None:
    with pytest.raises(BusError):
        subjects.subject("lab", "heartbeat", name)
    with pytest.raises(BusError):
        subjects.wildcard(name, "heartbeat")


def test_an_unknown_kind() -> None:
    with pytest.raises(BusError, match="gossip"):
        subjects.wildcard("lab", "gossip")
