"""The clients' real packets at a gateway: copied off the client port by a packet socket, judged by `core.flows`.

The kernel filters and stamps them (packet(7), SO_TIMESTAMPNS), so reading late changes no figure; they are read in
batches, because a wake-up per packet would cost more than everything else the agent does. It never sends, and it sees
IPv4 without a VLAN tag in the payload only.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, collapse_addresses

import structlog

from tunnelswitch import packet_sockets
from tunnelswitch.core.flows import FlowLimits, Flows
from tunnelswitch.errors import ClientPacketsError
from tunnelswitch.ports import Emit

_SOURCE, _DESTINATION = 12, 16
_KEEP_BYTES = 128  # IPv4 and TCP headers at their longest; or UDP and RTP
_SERVICES_MAX = 1000
_NETWORKS_MAX = 100  # a filter has to fit into net.core.optmem_max, 20 KiB by default, with 8 bytes a line and more
DROPS_TOLD_SECONDS = 10.0

_log = structlog.get_logger("tunnelswitch.client_packets")


@dataclass(frozen=True, slots=True)
class PacketLimits:
    """Bounds and thresholds.

    Attributes:
        read_seconds: pause between two batches.
        batch_packets: at most so many packets are taken at once; with the pause it bounds the load on the event loop.
        buffer_bytes: the socket's receive buffer; what does not fit is dropped and counted.
        retry_seconds: pause between two attempts to open the device.
        clock_step_seconds: the system clock was set if it moved so much against the monotonic one between two batches.
        flows: thresholds and bounds of the evaluation.
    """

    read_seconds: float = 0.025
    batch_packets: int = 1000
    buffer_bytes: int = 8 << 20
    retry_seconds: float = 1.0
    clock_step_seconds: float = 0.005
    flows: FlowLimits = field(default_factory=FlowLimits)


class ClientPackets:
    """Watches one device. Emits Traffic facts and ClientsSeen events from the event loop.

    A wait of 0 means answered, or that it cannot be told (packets were dropped, the clock was set).

    Args:
        device: the client port, such as `client0`; it may come and go.
        site: the gateway.
        services: the IPv4 address of each service that clients talk to, by service name.
        clock: monotonic seconds; `wall_clock_ns`: the clock of the kernel's timestamps.
    """

    def __init__(
        self,
        device: str,
        *,
        site: str,
        services: Mapping[str, str],
        emit: Emit,
        clock: Callable[[], float] = time.monotonic,
        wall_clock_ns: Callable[[], int] = time.time_ns,
        limits: PacketLimits | None = None,
    ) -> None:
        if len(services) > _SERVICES_MAX:
            raise ClientPacketsError(
                f"{len(services)} services on {device}", f"watch at most {_SERVICES_MAX} on one device"
            )
        self._device = device
        self._limits = limits or PacketLimits()
        self._flows = Flows(site, services, self._limits.flows)
        self._filter = address_filter(tuple(services.values()))
        self._emit = emit
        self._clock = clock
        self._wall_clock_ns = wall_clock_ns
        self._clock_offset_seconds: float | None = None
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._problem = ""
        self._dropped_at = float("-inf")
        self._told_of_drops_at = float("-inf")
        self.packets = 0
        self.dropped = 0

    @property
    def ready(self) -> bool:
        """Whether the device is being watched."""
        return self._socket is not None

    @property
    def problem(self) -> str:
        """Why clients are not being watched; empty while they are."""
        why = self._problem or "not yet"
        if self.ready:
            if self._clock() - self._dropped_at >= DROPS_TOLD_SECONDS:
                return ""
            why = "they come faster than they are read"
        return f"client packets on {self._device} are not watched: {why}"

    async def start(self) -> None:
        """Begin to watch, and return. A device that is not there is tried again for ever, and logged once.

        Raises:
            ClientPacketsError: this process may not watch packets at all.
        """
        try:
            self._open()
        except PermissionError as error:
            raise ClientPacketsError(
                f"no permission to watch the packets on {self._device} ({error})", "give the agent CAP_NET_RAW"
            ) from error
        except OSError as error:
            self._complain(error)
        self._task = asyncio.create_task(self._run(), name=f"client packets on {self._device}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._shut()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._limits.read_seconds if self._socket else self._limits.retry_seconds)
            try:
                if self._socket is None:
                    self._open()
                else:
                    self._read(self._socket)
            except OSError as error:
                self._shut()
                self._complain(error)

    def _open(self) -> None:
        # Protocol 0 receives nothing: no packet comes in before filter and device are set.
        watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        try:
            packet_sockets.attach(watch, self._filter)
            packet_sockets.stamp(watch)
            packet_sockets.enlarge(watch, self._limits.buffer_bytes)
            watch.bind((self._device, packet_sockets.ETH_P_ALL))
        except OSError:
            watch.close()
            raise
        self._socket = watch
        self._problem = ""
        self._flows.forget()
        _log.info("watching client packets", device=self._device)

    def _shut(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._flows.forget()
            self._tell(self._wall_clock_ns())

    def _complain(self, error: OSError) -> None:
        said, self._problem = self._problem, str(error)
        if not said:
            _log.warning(
                "client packets cannot be watched; trying again each second",
                device=self._device,
                error=str(error),
                remedy="create the device and set it up, or correct client_port in the deployment file",
            )

    def _read(self, watch: socket.socket) -> None:
        """One batch. Until the socket is empty, only the packets' own times say how late it is."""
        now_ns = self._now_ns()
        take, receive = self._flows.packet, watch.recvmsg
        at_ns = 0
        for _ in range(self._limits.batch_packets):
            try:
                data, ancillary, _flags, _address = receive(_KEEP_BYTES, 64)
            except BlockingIOError:
                break
            self.packets += 1
            at_ns = packet_sockets.nanoseconds(ancillary)
            traffic = take(at_ns, data)
            if traffic is not None:
                self._emit(traffic)
        else:
            now_ns = at_ns
        self._count_drops(watch)
        self._tell(now_ns)

    def _tell(self, now_ns: int) -> None:
        for seen in self._flows.unanswered(now_ns):
            self._emit(seen)

    def _now_ns(self) -> int:
        """The wall clock. If it was set since the last batch, what is known of the flows is forgotten."""
        before = self._clock()
        now_ns = self._wall_clock_ns()
        after = self._clock()
        if after - before > self._limits.clock_step_seconds / 2:  # interrupted here: the two cannot be compared
            return now_ns
        offset_seconds = now_ns / 1e9 - after
        known = self._clock_offset_seconds
        self._clock_offset_seconds = offset_seconds
        if known is not None and abs(offset_seconds - known) > self._limits.clock_step_seconds:
            self._flows.forget()
            _log.warning("the system clock was set", by_seconds=round(offset_seconds - known, 6))
        return now_ns

    def _count_drops(self, watch: socket.socket) -> None:
        dropped = packet_sockets.missed(watch)
        if dropped:
            self.dropped += dropped
            self._flows.forget()
            now = self._dropped_at = self._clock()
            if now - self._told_of_drops_at >= DROPS_TOLD_SECONDS:
                self._told_of_drops_at = now
                _log.warning("client packets dropped before they were read", device=self._device, ever=self.dropped)


def address_filter(addresses: Sequence[str]) -> bytes:
    """A classic BPF program (linux/filter.h) that keeps the head of IPv4 packets from or to one of the addresses, and
    of few others: what is kept beyond that, so that the program stays small, is told apart when it is read."""
    networks = _networks(addresses)
    lines: list[packet_sockets.Line] = [
        (packet_sockets.LOAD_WORD, 0, 0, packet_sockets.ANCILLARY),  # SKF_AD_PROTOCOL
        (packet_sockets.IF_EQUAL, 1, 0, packet_sockets.ETH_P_IP),
        (packet_sockets.RETURN, 0, 0, 0),
    ]
    for offset in (_SOURCE, _DESTINATION):
        for network in networks:
            lines += [
                (packet_sockets.LOAD_WORD, 0, 0, offset),
                (packet_sockets.AND, 0, 0, int(network.netmask)),
                (packet_sockets.IF_EQUAL, 0, 1, int(network.network_address)),
                (packet_sockets.RETURN, 0, 0, _KEEP_BYTES),
            ]
    lines.append((packet_sockets.RETURN, 0, 0, 0))
    return packet_sockets.program(lines)


def _networks(addresses: Sequence[str]) -> list[IPv4Network]:
    """Few networks that hold all the addresses: just these, or with some of their neighbours."""
    length = 32
    while True:
        wider = (IPv4Network((address, length), strict=False) for address in addresses)
        networks = list(collapse_addresses(wider))
        if len(networks) <= _NETWORKS_MAX:
            return networks
        length -= 1
