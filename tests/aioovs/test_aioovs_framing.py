"""The splitter: messages come out whole, however the bytes were cut; garbage is an error at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioovs.framing import MAX_DEPTH, FramingError, JsonSplitter

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('{}"\\ab', max_size=4), inner, max_size=3),
    max_leaves=12,
)
MESSAGES = st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=4), min_size=1, max_size=4)


@given(MESSAGES, st.integers(1, 7), st.booleans())
def test_any_cut_gives_the_same_messages(messages: list[dict[str, Any]], step: int, raw: bool) -> None:
    stream = b"".join(json.dumps(message, ensure_ascii=not raw).encode() for message in messages)
    splitter = JsonSplitter(10_000)
    found = [message for at in range(0, len(stream), step) for message in splitter.feed(stream[at : at + step])]
    assert found == messages


def test_whitespace_between_messages_is_allowed() -> None:
    assert JsonSplitter(100).feed(b' {"a":1}\n\n{"b":2} ') == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    "garbage",
    [b"HTTP/1.1 400 Bad Request\r\n", b"}", b"[1,2]", b'"text"', b'{"a":}', b"\x16\x03\x01", b'{"a":"\xff"}', b"{}x"],
)
def test_garbage_is_refused_at_once(garbage: bytes) -> None:
    with pytest.raises(FramingError):
        JsonSplitter(1000).feed(garbage)


def test_a_message_over_the_limit_is_refused_before_it_is_complete() -> None:
    splitter = JsonSplitter(100)
    with pytest.raises(FramingError, match="larger than 100"):
        splitter.feed(b'{"a":"' + b"x" * 200)


@pytest.mark.parametrize("bomb", [b'{"a":' * (MAX_DEPTH + 1), b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
def test_nesting_is_bounded(bomb: bytes) -> None:
    with pytest.raises(FramingError):
        JsonSplitter(10_000_000).feed(bomb)
