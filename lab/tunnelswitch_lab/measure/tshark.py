"""tshark's figures of an RTP stream, as an independent opinion: `tshark -q -z rtp,streams` (tshark(1)).

Nothing of ours goes into them but the capture file.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT_SECONDS = 120.0
_ROW = re.compile(
    r"^\s*(?P<start>[\d.]+)\s+(?P<end>[\d.]+)\s+(?P<source>[\d.]+)\s+(?P<source_port>\d+)"
    r"\s+(?P<destination>[\d.]+)\s+(?P<destination_port>\d+)\s+0x(?P<ssrc>[0-9A-Fa-f]{8})\s+(?P<payload>.+?)"
    r"\s+(?P<packets>\d+)\s+(?P<lost>-?\d+)\s+\((?P<lost_percent>-?[\d.]+)%\)"
    r"\s+(?P<figures>-?[\d.]+(?:\s+-?[\d.]+)*)(?:\s+X)?\s*$"
)


class TsharkError(Exception):
    """tshark is missing, failed, or printed something that is not understood."""


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One row of tshark's table."""

    source: tuple[str, int]
    destination: tuple[str, int]
    ssrc: int
    packets: int
    lost: int
    max_delta_seconds: float
    mean_jitter_seconds: float
    max_jitter_seconds: float


def rtp_streams(path: Path, port: int) -> list[StreamReport]:
    """What tshark finds in a capture when UDP `port` is decoded as RTP. Raises TsharkError."""
    executable = shutil.which("tshark")
    if executable is None:
        raise TsharkError("tshark is not installed: apt-get install tshark")
    command = [executable, "-n", "-r", str(path), "-d", f"udp.port=={port},rtp", "-q", "-z", "rtp,streams"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise TsharkError(f"tshark took longer than {_TIMEOUT_SECONDS:.0f} s on {path}") from error
    if result.returncode:
        complaint = result.stderr.strip().splitlines()[-1:] or [f"exit status {result.returncode}"]
        raise TsharkError(f"tshark on {path}: {complaint[0]}")
    return parse_streams(result.stdout)


def parse_streams(text: str) -> list[StreamReport]:
    """The rows of the table that `-z rtp,streams` prints. Raises TsharkError when there is no table."""
    if "RTP Streams" not in text:
        raise TsharkError("tshark printed no table of RTP streams")
    return [_report(match) for line in text.splitlines() if (match := _ROW.match(line))]


def _report(match: re.Match[str]) -> StreamReport:
    # Newer versions print minimum, mean and maximum of delta and of jitter, older ones fewer columns.
    figures = [float(word) / 1000 for word in match["figures"].split()]
    if len(figures) == 6:
        max_delta, mean_jitter, max_jitter = figures[2], figures[4], figures[5]
    elif len(figures) == 3:
        max_delta, mean_jitter, max_jitter = figures[0], figures[2], figures[1]
    else:
        raise TsharkError(f"tshark printed {len(figures)} figures in a row; 3 or 6 are understood")
    return StreamReport(
        source=(match["source"], int(match["source_port"])),
        destination=(match["destination"], int(match["destination_port"])),
        ssrc=int(match["ssrc"], 16),
        packets=int(match["packets"]),
        lost=int(match["lost"]),
        max_delta_seconds=max_delta,
        mean_jitter_seconds=mean_jitter,
        max_jitter_seconds=max_jitter,
    )
