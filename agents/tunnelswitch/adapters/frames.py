"""Whole Ethernet frames off one device and onto another, by packet sockets (packet(7)).

The kernel stamps a frame when the device delivers it, and describes what the sender left to the hardware (checksum,
segmentation: PACKET_VNET_HDR); that description travels with the frame. Frames with a VLAN tag are not taken. Decides
nothing.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence

from tunnelswitch import packet_sockets as packets
from tunnelswitch.errors import DataPlaneError

Ports = tuple[int, int]
PORT_RANGES_MAX = 32

_UDP = 17
_VERSION_4_WITHOUT_OPTIONS = 0x45
_FRAGMENT = 0x3FFF  # more fragments, or an offset
_BUFFER_BYTES = 8 << 20
_FRAME_MAX_BYTES = 10 + 14 + 65536
_VLAN_TAG_PRESENT = packets.ANCILLARY + 48
_WHOLE = 0xFFFFFFFF
_GONE = (errno.ENETDOWN, errno.ENODEV, errno.ENXIO)


class FrameTap:
    """The frames that come out of `source`, except UDP from certain ports, and a way to send frames out of `target`.

    Args:
        elsewhere: UDP source ports whose packets somebody else takes on.

    Raises:
        DataPlaneError: a device is not there, or we may not.
    """

    def __init__(self, source: str, target: str, elsewhere: Sequence[Ports] = ()) -> None:
        self._in = _open(source)
        try:
            packets.attach(self._in, frame_filter(elsewhere))
            packets.stamp(self._in)
            packets.enlarge(self._in, _BUFFER_BYTES)
            packets.ignore_outgoing(self._in)
            self._in.bind((source, packets.ETH_P_ALL))
            self._out = _open(target)
            self._out.bind((target, 0))
        except OSError as error:
            self._in.close()
            raise _refused(f"{source} or {target}", error) from None
        except DataPlaneError:
            self._in.close()
            raise

    def fileno(self) -> int:
        """To wait for frames with."""
        return self._in.fileno()

    def frames(self, limit: int) -> Iterator[tuple[int, bytes]]:
        """What has come, `limit` frames at most, each with its time in nanoseconds since 1970.

        Raises:
            OSError: the device went away or down.
        """
        receive = self._in.recvmsg
        for _ in range(limit):
            try:
                frame, ancillary, _flags, _address = receive(_FRAME_MAX_BYTES, 64)
            except BlockingIOError:
                return
            yield packets.nanoseconds(ancillary), frame

    def send(self, frame: bytes) -> bool:
        """Send a frame as it came; False if there is no room for it, or it is too long for the device.

        Raises:
            OSError: the device went away or down.
        """
        try:
            self._out.send(frame)
        except OSError as error:
            if error.errno in _GONE:
                raise
            return False
        return True

    def missed(self) -> int:
        """Frames that did not fit into the kernel's buffer since the last call."""
        return packets.missed(self._in)

    def close(self) -> None:
        """Let go of both devices."""
        self._in.close()
        self._out.close()


def frame_filter(elsewhere: Sequence[Ports]) -> bytes:
    """A classic BPF program that keeps every frame without a VLAN tag, except what `realtime_keys` matches."""
    tests = [
        (packets.LOAD_HALF, 12, None),
        (packets.IF_EQUAL, packets.ETH_P_IP, False),
        (packets.LOAD_BYTE, 14, None),
        (packets.IF_EQUAL, _VERSION_4_WITHOUT_OPTIONS, False),
        (packets.LOAD_BYTE, 23, None),
        (packets.IF_EQUAL, _UDP, False),
        (packets.LOAD_HALF, 20, None),
        (packets.IF_ANY_BIT, _FRAGMENT, True),
        (packets.LOAD_HALF, 34, None),
    ]
    lines = [(packets.LOAD_WORD, 0, 0, _VLAN_TAG_PRESENT), (packets.IF_EQUAL, 1, 0, 0), (packets.RETURN, 0, 0, 0)]
    if elsewhere:
        ranges = len(elsewhere)
        size = len(tests) + 3 * ranges
        for place, (code, operand, to_keep) in enumerate(tests):
            keep = size - place - 1
            lines.append((code, keep if to_keep is True else 0, keep if to_keep is False else 0, operand))
        for first, last in elsewhere:
            lines += [(packets.IF_AT_LEAST, 0, 2, first), (packets.IF_GREATER, 1, 0, last), (packets.RETURN, 0, 0, 0)]
    lines.append((packets.RETURN, 0, 0, _WHOLE))
    return packets.program(lines)


def realtime_keys(ports: Ports) -> list[list[str]]:
    """Keys of u32 filters (tc-u32(8)) that together match unfragmented IPv4 without options that carries UDP from
    `ports`: the same packets as the filter above leaves out."""
    first, last = ports
    head = [f"0x{_VERSION_4_WITHOUT_OPTIONS:02x}000000/0xff000000+0", f"0x0000/0x{_FRAGMENT:04x}+6", "0x11/0xff+9"]
    keys = []
    while first <= last:
        size = first & -first if first else 1 << 16
        while first + size - 1 > last:
            size >>= 1
        mask = 0x10000 - size
        keys.append([*head, f"0x{first:04x}0000/0x{mask:04x}0000+20"])
        first += size
    return keys


def _open(device: str) -> socket.socket:
    try:
        # Protocol 0 receives nothing: no frame comes in before everything is set.
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except OSError as error:
        raise _refused(device, error) from None
    try:
        packets.take_as_sent(opened)
    except OSError as error:
        opened.close()
        raise _refused(device, error) from None
    return opened


def _refused(device: str, error: OSError) -> DataPlaneError:
    if isinstance(error, PermissionError):
        remedy = "give the agent CAP_NET_RAW and CAP_NET_ADMIN"
    else:
        remedy = "create the devices (docs/buffering.md)"
    return DataPlaneError(f"no frames through {device}: {error.strerror}", remedy)
