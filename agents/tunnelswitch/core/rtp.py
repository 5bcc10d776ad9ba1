"""One RTP stream as a receiver sees it: RFC 3550's sequence numbers (appendix A.1) and interarrival jitter (6.4.1).

Pure. It reads headers only; it does not reorder, and knows nothing of RTCP.
"""

from __future__ import annotations

import struct

_NANOSECONDS = 1_000_000_000
_HEADER = struct.Struct("!BBHII")
_RTCP_TYPES = range(72, 77)  # what RTCP looks like when read as RTP (RFC 5761, section 4)
_STATIC_CLOCKS = {6: 16000, 10: 44100, 11: 44100, 14: 90000, 16: 11025, 17: 22050} | dict.fromkeys(range(25, 35), 90000)
_DYNAMIC_TYPES_FROM = 96
_COMMON_CLOCKS = (8000, 16000, 24000, 32000, 44100, 48000, 90000)
_CLOCK_GUESS_SECONDS = 0.5
_MIN_SEQUENTIAL = 2  # packets in sequence before a source is believed to be RTP
_MAX_MISORDER = 64  # further behind than this, the sender has started again
_WRAP_SECONDS = 3600.0


class RtpStream:
    """The current synchronisation source of one flow; another SSRC starts it anew.

    Attributes:
        jitter_seconds: the running estimate; 0 until the clock of a dynamic payload type has been guessed.
    """

    __slots__ = ("_clock_hz", "_first", "_sequence", "_sequential", "_ssrc", "_transit", "jitter_seconds")

    def __init__(self) -> None:
        self._ssrc = -1
        self._restart(0, 0, 0, 0)

    def _restart(self, at_ns: int, sequence: int, timestamp: int, clock_hz: int) -> None:
        self._sequential = 1
        self._sequence = sequence
        self._clock_hz = clock_hz
        self.jitter_seconds = 0.0
        self._transit: float | None = None
        self._first = (at_ns, timestamp)

    @property
    def believed(self) -> bool:
        return self._sequential >= _MIN_SEQUENTIAL

    def packet(self, at_ns: int, payload: bytes) -> int | None:
        """Take one UDP payload: how many packets are missing before it, or None when this is not (yet) RTP."""
        if len(payload) < _HEADER.size or payload[0] & 0xC0 != 0x80:
            return None
        _, second, sequence, timestamp, ssrc = _HEADER.unpack_from(payload)
        kind = second & 0x7F
        if kind in _RTCP_TYPES:
            return None
        if ssrc != self._ssrc:
            self._ssrc = ssrc
            clock_hz = 0 if kind >= _DYNAMIC_TYPES_FROM else _STATIC_CLOCKS.get(kind, 8000)
            self._restart(at_ns, sequence, timestamp, clock_hz)
            return None
        step = (sequence - self._sequence) & 0xFFFF
        if not self.believed:
            self._sequential = self._sequential + 1 if step == 1 else 1
        forward = 0 < step < 0x8000
        if forward:
            self._sequence = sequence
            self._advance(at_ns, timestamp)
        elif step >= 0x8000 and 0x10000 - step > _MAX_MISORDER:
            self._restart(at_ns, sequence, timestamp, self._clock_hz)
        return (step - 1 if forward else 0) if self.believed else None

    def _advance(self, at_ns: int, timestamp: int) -> None:
        first_ns, first_timestamp = self._first
        elapsed_seconds = (at_ns - first_ns) / _NANOSECONDS
        ticks = (timestamp - first_timestamp) & 0xFFFFFFFF
        if not self._clock_hz:
            if elapsed_seconds < _CLOCK_GUESS_SECONDS:
                return
            rate = ticks / elapsed_seconds
            self._clock_hz = min(_COMMON_CLOCKS, key=lambda clock: abs(clock - rate))
        transit = elapsed_seconds - ticks / self._clock_hz
        if self._transit is not None and abs(transit - self._transit) < _WRAP_SECONDS:
            self.jitter_seconds += (abs(transit - self._transit) - self.jitter_seconds) / 16
        self._transit = transit
