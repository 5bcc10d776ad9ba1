"""Weather on the lab's WAN, in user space: what leaves a site is delayed, spread out, lost or queued on its way.

    python -m tunnelswitch_lab.relay --link primary:primary-r --weather weather.json --out relay.json

runs inside the WAN's namespace and carries frames between the two devices of each link (packet(7)). Only the way from
the first to the second is impaired, so that a frame from site to site meets the weather once; the other way is as quick
as the relay is. Kernels without netem have no other way to delay; loss and rate are here too, so that one tool has all.
The weather changes when its file did and SIGHUP comes: no link is cut for it.

Delays count from the kernel's time of arrival, so the lateness written at the end is everything that the relay adds.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tunnelswitch import packet_sockets
from tunnelswitch_lab.workload.pacing import (
    ANCILLARY_BYTES,
    Lateness,
    ask_for_realtime,
    receive_time_ns,
)

_BUFFER_BYTES = 8 << 20
_FRAME_MAX_BYTES = 65536
_BATCH = 64
_WAIT_SECONDS_MAX = 0.25
QUEUE_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to each frame, by itself. `rate_bits` per second; 0: no limit. `frames_max` may be on their way or
    wait for it, and what comes then is dropped.

    Without `in_order` a frame may overtake another, as with netem's jitter: of many frames a second that may not, all
    are as late as the latest, and there is no jitter left.
    """

    delay_seconds: float = 0.0
    jitter_seconds: float = 0.0
    loss: float = 0.0
    rate_bits: float = 0.0
    in_order: bool = False
    frames_max: int = QUEUE_MAX

    @classmethod
    def load(cls, path: Path) -> Weather:
        """What a file holds. Raises OSError, ValueError or TypeError for one that holds no weather."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def save(self, path: Path) -> None:
        """Write it, at once and whole."""
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        temporary.replace(path)


CALM = Weather()


@dataclass(slots=True)
class Way:
    """One direction of a link: when each frame is due, and what became of them."""

    weather: Weather
    random: random.Random
    carried: int = 0
    lost: int = 0
    dropped: int = 0
    lateness: Lateness = field(default_factory=Lateness)
    _heap: list[tuple[int, int, bytes]] = field(default_factory=list)
    _order: int = 0
    _free_ns: int = 0
    _last_ns: int = 0

    def take(self, frame: bytes, arrived_ns: int) -> None:
        """A frame came in."""
        weather = self.weather
        if weather.loss and self.random.random() < weather.loss:
            self.lost += 1
            return
        if len(self._heap) >= weather.frames_max:
            self.dropped += 1
            return
        due_ns = arrived_ns
        if weather.rate_bits:
            due_ns = max(due_ns, self._free_ns) + round(len(frame) * 8e9 / weather.rate_bits)
            self._free_ns = due_ns
        due_ns += round(1e9 * (weather.delay_seconds + self.random.random() * weather.jitter_seconds))
        if weather.in_order:
            self._last_ns = due_ns = max(due_ns, self._last_ns)
        self._order += 1
        heapq.heappush(self._heap, (due_ns, self._order, frame))

    @property
    def due_ns(self) -> int | None:
        """When the next frame is due."""
        return self._heap[0][0] if self._heap else None

    def send(self, out: socket.socket, now_ns: int) -> None:
        """Hand on what is due. A frame that the device does not take is dropped: its link is down, or full."""
        while self._heap and self._heap[0][0] <= now_ns:
            due_ns, _, frame = heapq.heappop(self._heap)
            try:
                out.send(frame)
            except OSError:
                self.dropped += 1
                continue
            self.carried += 1
            self.lateness.add((time.time_ns() - due_ns) / 1e9)

    def told(self) -> dict[str, object]:
        """For people. Lateness is what the relay added to the weather."""
        return {
            "carried": self.carried,
            "lost": self.lost,
            "dropped": self.dropped,
            "late_median_seconds": round(self.lateness.quantile_seconds(0.5), 6),
            "late_p99_seconds": round(self.lateness.quantile_seconds(0.99), 6),
            "late_max_seconds": round(self.lateness.max_seconds, 6),
        }


def open_device(name: str) -> socket.socket:
    """Every frame that comes in at a device, and a way out of it. Raises OSError if there is no such device."""
    device = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    packet_sockets.ignore_outgoing(device)
    packet_sockets.enlarge(device, _BUFFER_BYTES)
    packet_sockets.stamp(device)
    device.setblocking(False)
    device.bind((name, packet_sockets.ETH_P_ALL))  # only now does anything come in
    return device


class Relay:
    """All links of one WAN. `links` are pairs of devices; from the first to the second there is weather."""

    def __init__(self, links: Iterable[tuple[str, str]], weather: Weather, seed: int | None = None) -> None:
        random_ = random.Random(seed)
        self.ways: dict[str, Way] = {}
        self._routes: dict[socket.socket, tuple[socket.socket, Way]] = {}
        for outer, inner in links:
            one, other = open_device(outer), open_device(inner)
            self.ways[f"from {outer}"] = Way(weather, random_)
            self.ways[f"to {outer}"] = Way(CALM, random_)
            self._routes[one] = (other, self.ways[f"from {outer}"])
            self._routes[other] = (one, self.ways[f"to {outer}"])

    def change(self, weather: Weather) -> None:
        """What is on its way arrives as it would have."""
        for name, way in self.ways.items():
            if name.startswith("from "):
                way.weather = weather

    def turn(self) -> None:
        """Wait for a frame or for one to be due, and carry what there is."""
        now_ns = time.time_ns()
        dues = [way.due_ns for _, way in self._routes.values() if way.due_ns is not None]
        wait = min(_WAIT_SECONDS_MAX, max(0.0, (min(dues) - now_ns) / 1e9)) if dues else _WAIT_SECONDS_MAX
        readable, _, _ = select.select(list(self._routes), [], [], wait)
        for device in readable:
            _, way = self._routes[device]
            self._read(device, way)
        now_ns = time.time_ns()
        for out, way in self._routes.values():
            way.send(out, now_ns)

    @staticmethod
    def _read(device: socket.socket, way: Way) -> None:
        for _ in range(_BATCH):
            try:
                frame, ancillary, _, _ = device.recvmsg(_FRAME_MAX_BYTES, ANCILLARY_BYTES)
            except BlockingIOError:
                return
            except OSError:  # the device went down; it may come back
                return
            way.take(frame, receive_time_ns(ancillary) or time.time_ns())

    def close(self) -> None:
        """Give the devices back."""
        for device in self._routes:
            device.close()


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="relay", description="Delay, jitter, loss and rate between devices.")
    parser.add_argument("--link", action="append", required=True, metavar="FROM:TO", help="two devices; repeatable")
    parser.add_argument("--weather", type=Path, required=True, metavar="FILE", help="JSON; read again at SIGHUP")
    parser.add_argument("--realtime", type=int, default=0, help="SCHED_FIFO priority")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="what became of the frames, as JSON")
    given = parser.parse_args(arguments)
    signals: set[int] = set()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda caught, frame: signals.add(caught))
    try:
        relay = Relay([_pair(link) for link in given.link], Weather.load(given.weather))
    except (OSError, ValueError, TypeError) as error:
        print(f"relay: {error}; name devices of this namespace as FROM:TO, and a file of weather", file=sys.stderr)
        return 1
    granted = ask_for_realtime(given.realtime)
    print("ready", flush=True)
    while not signals - {signal.SIGHUP}:
        if signal.SIGHUP in signals:
            signals.clear()
            _change(relay, given.weather)
        relay.turn()
    relay.close()
    told = {"realtime": granted, "ways": {name: way.told() for name, way in relay.ways.items()}}
    given.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


def _pair(link: str) -> tuple[str, str]:
    outer, separator, inner = link.partition(":")
    if not separator:
        raise ValueError(f"{link} is no link")
    return outer, inner


def _change(relay: Relay, path: Path) -> None:
    try:
        relay.change(Weather.load(path))
    except (OSError, ValueError, TypeError) as error:
        print(f"relay: the weather stays as it is: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
