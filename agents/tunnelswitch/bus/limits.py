"""How large anything in a message may be: one set of numbers for the decoder and for the JSON Schemas.

msgspec checks names, types and enums while it decodes, straight into the core's dataclasses. Those are plain and carry
no bounds, so the bounds are checked here, by functions composed once per type from msgspec's own description of it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec.inspect as described

from tunnelswitch.core.stamp import Stamp

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[Any], None]

PAYLOAD_BYTES = 512 * 1024
"""A heartbeat of a site with a thousand services; NATS allows twice as much unless told otherwise."""
STRING_CHARACTERS = 1024
ENTRIES = 1024
"""Most items of a list, most keys of a map."""
INTEGER = 2**53 - 1
"""JSON readers with double precision numbers are exact up to here."""
NUMBER = 1e15

STAMP_BOUNDS = {"epoch": 10**15 - 1, "minor": 10**9 - 1}
DECISION_PATTERN = "^[A-Za-z0-9_.:-]{1,64}$"
"""As `Stamp.parse` reads them, so that every stamp on the bus has a text form."""

_DECISION = re.compile(DECISION_PATTERN.replace("$", r"\Z"))


class LimitError(ValueError):
    """A value is out of bounds."""


def checker(message_type: type) -> Check:
    """A function that raises LimitError for a message of this type with a value that is out of bounds."""
    return _check_of(described.type_info(message_type)) or _accept


def _accept(value: object) -> None:
    """Nothing in this type has a bound."""


def _check_of(kind: described.Type) -> Check | None:
    match kind:
        case described.StrType():
            return _string
        case described.IntType():
            return _integer
        case described.FloatType():
            return _number
        case described.DataclassType():
            return _stamp if kind.cls is Stamp else _dataclass(kind.cls)
        case described.VarTupleType():
            return _items(_check_of(kind.item_type))
        case described.TupleType():
            return _fixed(tuple(_check_of(item) for item in kind.item_types))
        case described.DictType():
            return _mapping(_check_of(kind.value_type))
        case described.BoolType() | described.EnumType():
            return None
    raise TypeError(f"no bounds are defined for {kind}")


def _string(value: str) -> None:
    if len(value) > STRING_CHARACTERS:
        raise LimitError(f"a string of {len(value)} characters, at most {STRING_CHARACTERS} are allowed")


def _integer(value: int) -> None:
    if not 0 <= value <= INTEGER:
        raise LimitError(f"the integer {str(value)[:40]} is not in 0 to {INTEGER}")


def _number(value: float) -> None:
    if not 0.0 <= value <= NUMBER:  # false for NaN too
        raise LimitError(f"the number {value:.17g} is not in 0 to {NUMBER:g}")


def _stamp(value: Stamp) -> None:
    if not 0 <= value.epoch <= STAMP_BOUNDS["epoch"] or not 0 <= value.minor <= STAMP_BOUNDS["minor"]:
        raise LimitError("a stamp's epoch or minor number is out of range")
    if _DECISION.match(value.decision_id) is None:
        raise LimitError(f"{value.decision_id[:80]!r} is not a decision_id: it must match {DECISION_PATTERN}")


@cache
def _dataclass(cls: type) -> Check:
    info = described.type_info(cls)
    assert isinstance(info, described.DataclassType)
    checks = tuple((field.name, check) for field in info.fields if (check := _check_of(field.type)) is not None)

    def check_fields(value: object) -> None:
        for name, check in checks:
            check(getattr(value, name))

    return check_fields


def _bounded(value: Any) -> None:
    if len(value) > ENTRIES:
        raise LimitError(f"{len(value)} entries, at most {ENTRIES} are allowed")


def _items(check: Check | None) -> Check:
    def check_items(value: tuple[Any, ...]) -> None:
        _bounded(value)
        if check is not None:
            for item in value:
                check(item)

    return check_items


def _fixed(checks: tuple[Check | None, ...]) -> Check:
    def check_each(value: tuple[Any, ...]) -> None:
        for check, item in zip(checks, value, strict=True):
            if check is not None:
                check(item)

    return check_each


def _mapping(check: Check | None) -> Check:
    def check_values(value: dict[str, Any]) -> None:
        _bounded(value)
        for key, item in value.items():
            _string(key)
            if check is not None:
                check(item)

    return check_values
