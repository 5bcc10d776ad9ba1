"""A caller: G.711 mu-law, a packet every 20 ms with a fixed SSRC (RFC 3550, RFC 3551), and a trace of the
answers.

It sends silence and keeps its clock running through an outage, as a telephone does. It measures nothing
itself.
"""

from __future__ import annotations

import sys

from tunnelswitch_lab.workload.asking import Client, client_options, run_client
from tunnelswitch_lab.workload.packets import (
    PACKET_SPACING_SECONDS,
    PAYLOAD_BYTES,
    PCMU_PAYLOAD_TYPE,
    Reply,
    RtpPacket,
    build_rtp,
    parse_rtp_reply,
)


class RtpTalk:
    """RTP packets out, the service's replies in; sequence numbers in the trace do not wrap."""

    def __init__(self, ssrc: int) -> None:
        self._ssrc = ssrc
        self._last = 0

    def build(self, sequence: int, sent_ns: int) -> bytes:
        """Packet number `sequence`; the marker bit begins the talk."""
        self._last = sequence
        timestamp = (sequence * PAYLOAD_BYTES) & 0xFFFFFFFF
        return build_rtp(RtpPacket(sequence & 0xFFFF, timestamp, self._ssrc, PCMU_PAYLOAD_TYPE, marker=sequence == 0))

    def parse(self, data: bytes) -> tuple[int, int, Reply] | None:
        """An answer to one of our packets; its number is the nearest one at or before the last sent."""
        parsed = parse_rtp_reply(data)
        if parsed is None or parsed[0].ssrc != self._ssrc:
            return None
        packet, reply = parsed
        sequence = self._last - ((self._last - packet.sequence) & 0xFFFF)
        return (sequence, 0, reply) if sequence >= 0 else None


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options, given = client_options("rtp_client", 5004, PACKET_SPACING_SECONDS, arguments)
    return run_client(Client(options, RtpTalk(given.ssrc & 0xFFFFFFFF)), "rtp_client")


if __name__ == "__main__":
    sys.exit(main())
