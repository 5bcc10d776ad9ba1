"""The client and everything that watches it in one run: call, probe, capture and the bus' recorder, as
processes.

It starts and stops them and says how the call goes on. It knows no fault and judges nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tunnelswitch.pki.identities import VIEWER
from tunnelswitch.pki.issue import CA
from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns, procs
from tunnelswitch_lab.agents import check_alive
from tunnelswitch_lab.measure.events import BusEvent, read_events
from tunnelswitch_lab.measure.runs import CAPTURE, EVENTS, PROBE_TRACE, RTP_TRACE, read_stream
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.procs import Proc
from tunnelswitch_lab.testbed import Testbed

SERVICE = (names.SERVICE_ADDRESS, names.RTP_PORT)
_CLIENT_DEVICE = "eth0"
_CLIENT_PRIORITY = 1  # above every ordinary process: one late slice would look like an outage
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_PCAP_HEADER_BYTES = 24


class Recording:
    """The processes of one run, writing into its directory. `services` are the addresses and ports that may answer,
    `ports` those that the capture keeps."""

    services: tuple[tuple[str, int], ...] = (SERVICE,)
    ports: tuple[int, ...] = (names.RTP_PORT,)

    def __init__(self, bed: Testbed, directory: Path) -> None:
        self._bed = bed
        self._directory = directory
        self._watchers: list[Proc] = []
        self._clients: list[Proc] = []

    async def start(self) -> None:
        """Start the watchers, then, when they see, the clients. Raises LabError if one of them cannot work."""
        await self.start_watching()
        self.start_clients()

    async def start_watching(self) -> None:
        """Start the watchers alone, and return when they see. Raises LabError if one of them cannot work."""
        layout = self._bed.layout
        events, capture = self._directory / EVENTS, self._directory / CAPTURE
        url, access = layout.gateway.nats_url, {"key": VIEWER.seed(layout.keys)}
        if self._bed.options.tls:
            access["ca"] = layout.keys / CA
        self._watchers = [
            self._spawn("gateway", "measure.events", url=url, cluster=layout.name, out=events, **access),
            self._spawn("client", "measure.capture", dev=_CLIENT_DEVICE, port=self.ports, out=capture),
        ]
        await self._wait(events.exists, self._watchers[0])
        await self._wait(lambda: capture.exists() and capture.stat().st_size >= _PCAP_HEADER_BYTES, self._watchers[1])

    def start_clients(self) -> None:
        """The call and the probe alone, with nobody watching: for a long time, of which their summaries are enough."""
        whom = {"realtime": _CLIENT_PRIORITY, **self.whom()}
        rtp, probe = self._directory / RTP_TRACE, self._directory / PROBE_TRACE
        self._clients = [
            self._spawn("client", "workload.rtp_client", port=names.RTP_PORT, out=rtp, **whom),
            self._spawn("client", "workload.probe", port=names.PROBE_PORT, out=probe, **whom),
        ]

    def whom(self) -> dict[str, str]:
        """The clients' options that say whom to ask."""
        return {"host": names.SERVICE_ADDRESS}

    async def wait_clients(self, timeout_seconds: float) -> None:
        """Return when the clients have ended by themselves, or after this time."""
        await procs.wait_gone([proc.pid for proc in self._clients], timeout_seconds)

    async def stop(self) -> None:
        """End the clients, then the watchers, each in order and with its files written."""
        for group in (self._clients, self._watchers):
            for proc in group:
                proc.signal(15)
            left = await procs.wait_gone([proc.pid for proc in group], _STOP_SECONDS)
            for proc in group:
                if proc.pid in left:
                    proc.signal(9)

    def arrivals(self) -> list[float]:
        """When replies of the service arrived, seconds since 1970; the capture is half a second behind."""
        streams = [read_stream(self._directory / CAPTURE, service) for service in self.services]
        return sorted(packet.arrived_ns / 1e9 for stream in streams for packet in stream.packets)

    def events(self, since: float = 0.0) -> list[BusEvent]:
        """What was said on the bus after a moment, a quarter of a second behind."""
        return [event for event in read_events(self._directory / EVENTS) if event.received_at >= since]

    async def wait_for_service(self, timeout_seconds: float) -> None:
        """Return when the call is answered. Raises LabError when it is not in time."""

        async def answered() -> bool:
            arrivals = await asyncio.to_thread(self.arrivals)
            return bool(arrivals) and time.time() - arrivals[-1] < 1.5

        try:
            await netns.wait_for(answered, "the client gets no answer", timeout_seconds, poll_seconds=0.25)
        except TimeoutError as error:
            raise LabError(f"{error}; look at the logs below {self._bed.layout.directory}") from None

    def _spawn(self, namespace: str, module: str, **options: object) -> Proc:
        command = [sys.executable, "-m", f"tunnelswitch_lab.{module}"]
        for option, value in options.items():
            for one in value if isinstance(value, tuple) else (value,):
                command += [f"--{option}", str(one)]
        name = module.rpartition(".")[2].replace("_", "-")
        return self._bed.spawn(namespace, command, name=name, log=self._directory / f"{name}.log")

    async def _wait(self, ready: Callable[[], bool], proc: Proc) -> None:
        async def check() -> bool:
            check_alive(proc)
            return ready()

        try:
            await netns.wait_for(check, proc.name, _START_SECONDS)
        except TimeoutError as error:
            raise LabError(f"{error}; its log is {proc.log}") from None
