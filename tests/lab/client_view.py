"""What a client sees, asked from the client's own namespace: which copies answer, with which state."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass, field

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.testbed import Testbed
from tunnelswitch_lab.workload.packets import ProbeReply, build_probe, parse_probe_reply

SPACING_SECONDS = 0.01
PATIENCE_SECONDS = 10.0


@dataclass
class View:
    """Replies in the order of their arrival."""

    asked: int = 0
    replies: list[ProbeReply] = field(default_factory=list)

    @property
    def copies(self) -> list[str]:
        """The sites that answered, in order, repetitions folded."""
        folded: list[str] = []
        for reply in self.replies:
            if not folded or folded[-1] != reply.reply.site:
                folded.append(reply.reply.site)
        return folded


class Client:
    """One UDP socket behind the gateway."""

    def __init__(self, bed: Testbed) -> None:
        with netns.entered(bed.layout.client_namespace):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(SPACING_SECONDS)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def watch(self, seconds: float, view: View | None = None, enough: threading.Event | None = None) -> View:
        """Ask every 10 ms for so long, and on until anybody has answered. `view` can be read meanwhile; `enough` ends
        it earlier."""
        view = view or View()
        first = self._sequence + 1
        end = time.monotonic() + seconds
        while time.monotonic() < end or (not view.replies and time.monotonic() < end + PATIENCE_SECONDS):
            if enough is not None and enough.is_set():
                break
            self._sequence += 1
            view.asked += 1
            due = time.monotonic() + SPACING_SECONDS
            self._socket.sendto(build_probe(self._sequence, time.time_ns()), (names.SERVICE_ADDRESS, names.PROBE_PORT))
            while (left := due - time.monotonic()) > 0:
                self._socket.settimeout(left)
                try:
                    reply = parse_probe_reply(self._socket.recv(2048))
                except TimeoutError:
                    break
                if reply is not None and reply.sequence >= first:  # others answer what an earlier view asked
                    view.replies.append(reply)
        return view
