"""A fine ruler: one small datagram a millisecond to the service, and a trace of the answers.

It resolves outages twenty times finer than the 20 ms packets of a call. It measures nothing itself.
"""

from __future__ import annotations

import sys

from tunnelswitch_lab.workload.asking import Client, client_options, run_client
from tunnelswitch_lab.workload.packets import Reply, build_probe, parse_probe_reply

PROBE_SPACING_SECONDS = 0.001


class ProbeTalk:
    """Probes out, echoes in."""

    def build(self, sequence: int, sent_ns: int) -> bytes:
        """Probe number `sequence`."""
        return build_probe(sequence, sent_ns)

    def parse(self, data: bytes) -> tuple[int, int, Reply] | None:
        """An echoed probe."""
        echo = parse_probe_reply(data)
        return None if echo is None else (echo.sequence, echo.sent_ns, echo.reply)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options, _ = client_options("probe", 5006, PROBE_SPACING_SECONDS, arguments)
    return run_client(Client(options, ProbeTalk()), "probe")


if __name__ == "__main__":
    sys.exit(main())
