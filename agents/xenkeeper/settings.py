"""What an agent tells its keeper about the guest: all of it comes from the deployment file, none is kept here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

_AMOUNT_MAX = 1_000_000


class SettingsError(Exception):
    """A value that cannot be used; the text names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One guest at one site.

    Args:
        guest: its name in `xl list`.
        listen, peer: HOST:PORT at which checkpoints are taken in here and there.
        interval_ms: from the end of one checkpoint to the beginning of the next.
        stall_seconds: a checkpoint that takes longer has lost its standby.
        silence_seconds: a stream without a byte for so long has ended.
        sync_seconds: how long the copying before the first checkpoint may take.
        timeout_seconds: for a short xl command, for the peer to answer, and between two steps of the copying.
    """

    guest: str
    listen: str
    peer: str
    interval_ms: int
    stall_seconds: float
    silence_seconds: float
    sync_seconds: float
    timeout_seconds: float

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Settings:
        """From a request's fields. Raises SettingsError."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            value: Any = table.get(field.name)
            fits = isinstance(value, str) and value if field.type == "str" else _is_amount(value)
            if not fits:
                raise SettingsError(f"{field.name} is {value!r}")
            values[field.name] = value
        settings = cls(**values)
        for endpoint in (settings.listen, settings.peer):
            address(endpoint)
        return settings


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _AMOUNT_MAX


def address(endpoint: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [IPV6]:PORT. Raises SettingsError."""
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise SettingsError(f"{endpoint!r} is not HOST:PORT")
    return host.strip("[]"), int(port)
