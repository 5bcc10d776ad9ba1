"""Whole Ethernet frames off one device and onto another, by packet sockets (packet(7)).

The kernel stamps a frame when the device delivers it, and describes what the sender left to the hardware (checksum,
segmentation: PACKET_VNET_HDR); that description travels with the frame. Frames with a VLAN tag are not taken. Decides
nothing.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator, Sequence

from tunnelswitch.errors import DataPlaneError

Ports = tuple[int, int]
PORT_RANGES_MAX = 32

_SOL_PACKET = 263
_PACKET_STATISTICS, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 6, 15, 23
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 26, 33, 35
_ETH_P_ALL, _ETH_P_IP, _UDP = 0x0003, 0x0800, 17
_VERSION_4_WITHOUT_OPTIONS = 0x45
_FRAGMENT = 0x3FFF  # more fragments, or an offset
_BUFFER_BYTES = 8 << 20
_FRAME_MAX_BYTES = 10 + 14 + 65536
_TIMESPEC = struct.Struct("@qq")
_STATISTICS = struct.Struct("@II")
_LINE = struct.Struct("@HBBI")
# linux/filter.h, classic BPF
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30
_IF_EQUAL, _IF_GREATER, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x15, 0x25, 0x35, 0x45, 0x06
_VLAN_TAG_PRESENT = 0xFFFFF000 + 48  # SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT
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
            program = ctypes.create_string_buffer(frame_filter(elsewhere))
            lines = (len(program) - 1) // _LINE.size
            self._in.setsockopt(
                socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", lines, ctypes.addressof(program))
            )
            self._in.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            self._in.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._in.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
            self._in.bind((source, _ETH_P_ALL))
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
            seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
            yield seconds * 1_000_000_000 + nanoseconds, frame

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
        statistics = self._in.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        return int(_STATISTICS.unpack(statistics)[1])

    def close(self) -> None:
        """Let go of both devices."""
        self._in.close()
        self._out.close()


def frame_filter(elsewhere: Sequence[Ports]) -> bytes:
    """A classic BPF program that keeps every frame without a VLAN tag, except what `realtime_keys` matches."""
    tests = [
        (_LOAD_HALF, 12, None),
        (_IF_EQUAL, _ETH_P_IP, False),
        (_LOAD_BYTE, 14, None),
        (_IF_EQUAL, _VERSION_4_WITHOUT_OPTIONS, False),
        (_LOAD_BYTE, 23, None),
        (_IF_EQUAL, _UDP, False),
        (_LOAD_HALF, 20, None),
        (_IF_ANY_BIT, _FRAGMENT, True),
        (_LOAD_HALF, 34, None),
    ]
    lines = [(_LOAD_WORD, 0, 0, _VLAN_TAG_PRESENT), (_IF_EQUAL, 1, 0, 0), (_RETURN, 0, 0, 0)]
    if elsewhere:
        ranges = len(elsewhere)
        size = len(tests) + 3 * ranges
        for place, (code, operand, to_keep) in enumerate(tests):
            keep = size - place - 1
            lines.append((code, keep if to_keep is True else 0, keep if to_keep is False else 0, operand))
        for first, last in elsewhere:
            lines += [(_IF_AT_LEAST, 0, 2, first), (_IF_GREATER, 1, 0, last), (_RETURN, 0, 0, 0)]
    lines.append((_RETURN, 0, 0, _WHOLE))
    return b"".join(_LINE.pack(code, true, false, operand) for code, true, false, operand in lines)


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
        opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
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
