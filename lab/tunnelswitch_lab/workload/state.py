"""The state of the service and its copy in bytes: what a checkpoint carries.

Pure. The whole state is copied at every checkpoint, as small services do; there are no deltas.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

MAX_CLIENTS = 1024
_TOTALS = struct.Struct("!QQI")
_CLIENT = struct.Struct("!IQ")
MAX_STATE_BYTES = _TOTALS.size + MAX_CLIENTS * _CLIENT.size


class StateError(ValueError):
    """A copy of the state cannot be read."""


@dataclass(slots=True)
class ServiceState:
    """Counters: all RTP packets and all probes answered, and RTP packets per client (SSRC)."""

    packets: int = 0
    probes: int = 0
    clients: dict[int, int] = field(default_factory=dict)

    def count_packet(self, ssrc: int) -> tuple[int, int]:
        """Count one RTP packet; returns (total, this client's).

        Clients beyond MAX_CLIENTS are served, but count only in the total.
        """
        self.packets += 1
        mine = self.clients.get(ssrc, 0) + 1
        if mine > 1 or len(self.clients) < MAX_CLIENTS:
            self.clients[ssrc] = mine
        return self.packets, mine

    def dump(self) -> bytes:
        """The state in bytes; at most MAX_STATE_BYTES."""
        pack = _CLIENT.pack
        parts = [_TOTALS.pack(self.packets, self.probes, len(self.clients))]
        parts += [pack(ssrc, count) for ssrc, count in self.clients.items()]
        return b"".join(parts)

    @classmethod
    def load(cls, data: bytes) -> ServiceState:
        """The state that `dump` wrote. Raises StateError when the bytes are not exactly one state."""
        if len(data) < _TOTALS.size:
            raise StateError(f"a state of {len(data)} bytes is too short")
        packets, probes, count = _TOTALS.unpack_from(data)
        if count > MAX_CLIENTS or len(data) != _TOTALS.size + count * _CLIENT.size:
            raise StateError(f"a state of {len(data)} bytes cannot hold {count} clients")
        return cls(packets, probes, dict(_CLIENT.iter_unpack(data[_TOTALS.size :])))
