"""The client of the workload `sip`: one real call, with its signalling in the capture."""

from __future__ import annotations

from pathlib import Path

from tunnelswitch_lab import layout as names
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.sip_service import HERE, SIP_PORT
from tunnelswitch_lab.testbed import Testbed

_SILENCE, _SAMPLES_PER_SECOND = 0xD5, 8000  # A-law's zero (G.711)


def caller(directory: Path, me: str, whom: str, seconds: float, port: int = SIP_PORT) -> list[str]:
    """The command of a call of so many seconds, with what it needs in `directory`."""
    tone, scenario = directory.resolve() / "tone.al", directory.resolve() / "call.xml"
    tone.write_bytes(bytes([_SILENCE]) * _SAMPLES_PER_SECOND)
    text = (HERE / "call.xml").read_text(encoding="utf-8")
    scenario.write_text(text.replace("tone.al", str(tone)), encoding="utf-8")
    command = ["sipp", "-sf", str(scenario), f"{whom}:{port}", "-i", me, "-mi", me, "-p", str(port), "-s", "pbx"]
    return [*command, "-m", "1", "-d", f"{seconds * 1000:.0f}", "-nostdin"]


class SipRecording(Recording):
    """A call of a fixed length, with its signalling in the capture."""

    ports = (names.RTP_PORT, SIP_PORT)

    def __init__(self, bed: Testbed, directory: Path, seconds: float) -> None:
        super().__init__(bed, directory)
        self._seconds = seconds

    def start_clients(self) -> None:
        """Call, and hang up by itself."""
        command = caller(self._directory, names.CLIENT_ADDRESS, names.SERVICE_ADDRESS, self._seconds)
        self._clients = [self._bed.spawn("client", command, name="sipp", log=self._directory / "sipp.log")]
