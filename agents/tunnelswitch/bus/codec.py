"""Messages to bytes and back: a CloudEvents 1.0 envelope in structured JSON, decoded straight into the core's types.

The type name carries the major version (`tunnelswitch.v1.heartbeat`). Fields that we do not know are ignored, so that
a later minor version can add some. Does not judge whether a message is fresh, nor whether its sender may say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from tunnelswitch.bus import limits
from tunnelswitch.bus.subjects import BY_NAME, BY_TYPE, RECORD
from tunnelswitch.core.facts import GroupRecord
from tunnelswitch.errors import BadMessageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunnelswitch.core.actions import Message

SPECVERSION = "1.0"
FAMILY = "tunnelswitch."
TYPE_PREFIX = f"{FAMILY}v1."

_UPGRADE = "run the same major version of tunnelswitch everywhere"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A decoded message. `time` is the sender's clock in Unix seconds, for people and reports only."""

    message: Message | GroupRecord
    source: str
    id: str
    time: float


class _Head(msgspec.Struct):
    """Enough to tell whether the rest can be read. Without types: a foreign message should be named as such."""

    type: Any = None
    specversion: Any = None


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class WireEnvelope(msgspec.Struct):
    """CloudEvents 1.0 context attributes (spec section 3.1); `data` is decoded on its own."""

    specversion: _Name
    id: _Name
    source: _Name
    type: _Name
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    data: msgspec.Raw


class _Outgoing(msgspec.Struct):
    specversion: str
    id: str
    source: str
    type: str
    time: datetime
    data: object


@dataclass(frozen=True, slots=True)
class _Codec:
    type_name: str
    decoder: msgspec.json.Decoder[Any]
    check: Callable[[Any], None]


def _codec(name: str, message_type: type) -> _Codec:
    return _Codec(f"{TYPE_PREFIX}{name}", msgspec.json.Decoder(message_type), limits.checker(message_type))


_BY_TYPE = {message_type: _codec(kind.name, message_type) for message_type, kind in BY_TYPE.items()}
_BY_NAME = {codec.type_name: codec for codec in _BY_TYPE.values()}
_ENCODER = msgspec.json.Encoder()
_ENVELOPES = msgspec.json.Decoder(WireEnvelope)
_HEADS = msgspec.json.Decoder(_Head)


def encode(message: Message | GroupRecord, source: str, id: str, time_unix: float) -> bytes:  # noqa: A002
    """The bytes of one message.

    Args:
        message: what to send.
        source: who sends it, such as `gateway/switcher`.
        id: unique for this source.
        time_unix: Unix seconds.

    Raises:
        BadMessageError: no receiver would take it: a value is out of bounds (`invalid`), or it is `too_large`.
    """
    codec = _BY_TYPE[type(message)]
    try:
        codec.check(message)
        time = datetime.fromtimestamp(time_unix, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise BadMessageError("invalid", f"{codec.type_name} cannot be sent: {error}") from error
    payload = _ENCODER.encode(_Outgoing(SPECVERSION, id, source, codec.type_name, time, message))
    if len(payload) > limits.PAYLOAD_BYTES:
        raise BadMessageError(
            "too_large",
            f"{codec.type_name} of {len(payload)} bytes cannot be sent: at most {limits.PAYLOAD_BYTES} are allowed",
            "spread the services of this site over more sites",
        )
    return payload


def decode(payload: bytes) -> Envelope:
    """The message in these bytes.

    Raises:
        BadMessageError: `kind` says why: too_large (measured before anything is parsed), not_json, version (another
            major version), type (a name we do not know), invalid (a field is missing, of the wrong type or out of
            bounds).
    """
    if len(payload) > limits.PAYLOAD_BYTES:
        raise BadMessageError(
            "too_large",
            f"message of {len(payload)} bytes, at most {limits.PAYLOAD_BYTES} are allowed",
            "find the publisher, it is not an agent of ours",
        )
    try:
        wire = _ENVELOPES.decode(payload)
        codec = _BY_NAME.get(wire.type)
        if codec is None or wire.specversion != SPECVERSION:
            raise _foreign(wire.type, wire.specversion)
        message = codec.decoder.decode(wire.data)
        codec.check(message)
        return Envelope(message, wire.source, wire.id, wire.time.timestamp())
    except limits.LimitError as error:
        raise BadMessageError("invalid", f"{wire.type} from {wire.source}: {error}", _UPGRADE) from error
    except (msgspec.ValidationError, OverflowError) as error:
        raise _invalid(payload, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessageError(
            "not_json", f"message is not JSON: {error}", "find who else publishes under tsw.v1"
        ) from error


def encode_record(record: GroupRecord) -> bytes:
    """The epoch store's value for this record. The same record always gives the same bytes.

    Raises:
        BadMessageError: as `encode`.
    """
    return encode(record, record.decided_by or "init", str(record.stamp), record.decided_at)


def decode_record(payload: bytes) -> GroupRecord:
    """The record in a value of the epoch store.

    Raises:
        BadMessageError: as `decode`, and `type` for a message that is not a record.
    """
    message = decode(payload).message
    if not isinstance(message, GroupRecord):
        raise BadMessageError("type", f"expected a {RECORD.name}, found a {BY_TYPE[type(message)].name}")
    return message


def _foreign(type_name: object, specversion: object) -> BadMessageError:
    """Neither ours nor of our version: which of the two?"""
    text = str(type_name)[:80]
    if specversion != SPECVERSION:
        return BadMessageError("version", f"CloudEvents {str(specversion)[:80]!r}, expected {SPECVERSION}", _UPGRADE)
    if text.startswith(f"{FAMILY}v") and not text.startswith(TYPE_PREFIX):
        return BadMessageError("version", f"message type {text!r} is of another version, expected v1", _UPGRADE)
    return BadMessageError("type", f"message type {text!r} is unknown, expected {TYPE_PREFIX}NAME", _UPGRADE)


def _invalid(payload: bytes, error: Exception) -> BadMessageError:
    """The envelope or the data does not fit. A foreign type explains that better than a missing field of it."""
    try:
        head = _HEADS.decode(payload)
    except msgspec.DecodeError:
        head = _Head()
    if isinstance(head.type, str) and head.type not in _BY_NAME:
        return _foreign(head.type, SPECVERSION)
    return BadMessageError("invalid", f"{str(head.type or 'message')[:80]}: {error}", _UPGRADE)


def type_name(kind: str) -> str:
    """The CloudEvents type of one kind of message."""
    return _BY_TYPE[BY_NAME[kind].message_type].type_name
