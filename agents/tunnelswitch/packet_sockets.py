"""What the kernel's sockets can do (socket(7), packet(7)) and Python has no names for: filters, times, drops."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Sequence

ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800  # linux/if_ether.h
# Codes of classic BPF, linux/filter.h, and where it finds what lies outside the packet (SKF_AD_OFF).
LOAD_WORD, LOAD_HALF, LOAD_BYTE, AND, RETURN = 0x20, 0x28, 0x30, 0x54, 0x06
IF_EQUAL, IF_GREATER, IF_AT_LEAST, IF_ANY_BIT = 0x15, 0x25, 0x35, 0x45
ANCILLARY = 0xFFFFF000
SO_TIMESTAMPNS, TIMESPEC = 35, struct.Struct("@qq")  # on x86 and arm

Line = tuple[int, int, int, int]
"""Code, lines to jump over if true, if false, operand."""

_SOL_PACKET = 263
_PACKET_STATISTICS, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 6, 15, 23
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_LINE = struct.Struct("@HBBI")
_STATISTICS = struct.Struct("@II")


def program(lines: Iterable[Line]) -> bytes:
    """A filter as the kernel takes it."""
    return b"".join(_LINE.pack(*line) for line in lines)


def attach(opened: socket.socket, filtered_by: bytes) -> None:
    """Have only what the filter keeps come in. Raises OSError."""
    held = ctypes.create_string_buffer(filtered_by, len(filtered_by))
    header = struct.pack("@HP", len(filtered_by) // _LINE.size, ctypes.addressof(held))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)


def stamp(opened: socket.socket) -> None:
    """Have the kernel say when each came in, see `nanoseconds`. Raises OSError."""
    opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def enlarge(opened: socket.socket, buffer_bytes: int) -> None:
    """Have a receive buffer of this size; without CAP_NET_ADMIN of what net.core.rmem_max allows. Raises OSError."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)


def take_as_sent(opened: socket.socket) -> None:
    """Have frames come and go with what their sender left to the hardware. Raises OSError."""
    opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)


def ignore_outgoing(opened: socket.socket) -> None:
    """Have no frame come in that goes out here. Raises OSError."""
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)


def nanoseconds(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """The time since 1970 with which the kernel stamped what `recvmsg` gave."""
    seconds, rest = TIMESPEC.unpack(ancillary[0][2])
    return int(seconds * 1_000_000_000 + rest)


def missed(opened: socket.socket) -> int:
    """What did not fit into the buffer since the last call. Raises OSError."""
    return int(_STATISTICS.unpack(opened.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))[1])
