"""Two messages of OpenFlow 1.0.1: a greeting, and a frame that came in at a port.

With them somebody beside a switch says what a machine's card would have said: the switch learns the frame's source at
that port and forwards it as it does every other (Open vSwitch's NORMAL).
"""

from __future__ import annotations

import socket
import struct

_VERSION, _HELLO, _PACKET_OUT = 1, 0, 13
_HEADER = struct.Struct("!BBHI")  # version, type, length, transaction: section 5.1
_NO_BUFFER = 0xFFFFFFFF
_OUTPUT, _NORMAL = 0, 0xFFFA


def _message(kind: int, body: bytes = b"") -> bytes:
    return _HEADER.pack(_VERSION, kind, _HEADER.size + len(body), 0) + body


def packet_out(in_port: int, frame: bytes) -> bytes:
    """The message that has the switch forward a frame as if it had come in at `in_port` (section 5.3.6)."""
    action = struct.pack("!HHHH", _OUTPUT, 8, _NORMAL, 0)
    return _message(_PACKET_OUT, struct.pack("!IHH", _NO_BUFFER, in_port, len(action)) + action + frame)


def connect(path: str) -> socket.socket:
    """Greet a switch at its management socket (ovs-ofctl(8), BRIDGE.mgmt). Raises OSError if nobody is there.

    What the switch says is never read, nor needed: it hangs up on the silent, after a minute by default.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
        sock.sendall(_message(_HELLO))
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
