"""The weather on the lab's WAN: what becomes of a frame, and real frames through real devices."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch_lab import netns, procs
from tunnelswitch_lab.netns import End
from tunnelswitch_lab.relay import CALM, QUEUE_MAX, Way, Weather

MS = 1_000_000


class Out(socket.socket):
    """A device that takes everything, or nothing."""

    def __init__(self, *, up: bool = True) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.frames: list[bytes] = []
        self.up = up

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
        if not self.up:
            raise OSError("down")
        self.frames.append(data)
        return len(data)


def way(weather: Weather) -> Way:
    return Way(weather, random.Random(1))


@given(st.lists(st.integers(0, 5 * MS), min_size=1, max_size=50), st.booleans())
def test_every_frame_is_late_by_delay_and_some_jitter_and_none_is_early(gaps: list[int], in_order: bool) -> None:
    line = way(Weather(delay_seconds=0.02, jitter_seconds=0.01, in_order=in_order))
    now, arrived = 0, {}
    for number, gap in enumerate(gaps):
        now += gap
        frame = number.to_bytes(4, "big")
        arrived[frame] = now
        line.take(frame, now)
    with Out() as out:
        while (due := line.due_ns) is not None:
            line.send(out, due - 1)
            before = len(out.frames)
            line.send(out, due)
            for frame in out.frames[before:]:
                assert 20 * MS <= due - arrived[frame] <= 30 * MS or in_order
        assert sorted(out.frames) == sorted(arrived)
        assert not in_order or out.frames == sorted(arrived)


def test_loss_is_as_asked_and_counted() -> None:
    line = way(Weather(loss=0.05))
    for _ in range(10_000):
        line.take(b"x", 0)
    with Out() as out:
        line.send(out, 0)
        assert 350 < line.lost < 650
        assert len(out.frames) == line.carried == 10_000 - line.lost


def test_a_narrow_line_queues_and_a_full_queue_drops() -> None:
    line = way(Weather(rate_bits=8e6))
    for _ in range(3):
        line.take(b"x" * 1000, 0)
    with Out() as out:
        line.send(out, 2 * MS)
        assert len(out.frames) == 2
    for _ in range(QUEUE_MAX):
        line.take(b"x", 0)
    assert line.dropped == 1


def test_a_device_that_is_down_loses_frames_and_nothing_else() -> None:
    line = way(Weather())
    line.take(b"x", 0)
    with Out(up=False) as out:
        line.send(out, 0)
    assert (line.dropped, line.carried, line.due_ns) == (1, 0, None)


@pytest.mark.lab
async def test_real_frames_are_delayed_one_way(tmp_path: Path, new_name: Callable[[], str]) -> None:
    """Two hosts, the relay between them: 15 ms there, nothing back."""
    name = f"tsw-{new_name()}"
    near, middle, far = (f"{name}-{part}" for part in ("near", "wan", "far"))
    for namespace in (near, middle, far):
        await netns.create(namespace)
    relay = None
    try:
        for host, device, address in ((near, "a", "10.1.0.1"), (far, "b", "10.1.0.2")):
            await netns.add_veth(End(middle, device), End(host, "eth0"))
            async with netns.netlink(host) as ip:
                index = await netns.index_of(ip, "eth0")
                await ip.addr("add", index=index, address=address, prefixlen=24)
        out, log = tmp_path / "relay.json", tmp_path / "relay.log"
        weather = tmp_path / "weather.json"
        CALM.save(weather)
        command = [sys.executable, "-m", "tunnelswitch_lab.relay", "--link", "a:b", "--weather", str(weather)]
        command += ["--out", str(out)]
        relay = procs.start(middle, command, name="relay", site="wan", log=log)
        await netns.wait_for(lambda: asyncio.to_thread(lambda: "ready" in log.read_text()), "the relay", 20)
        with netns.entered(far):
            echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            echo.bind(("10.1.0.2", 7))
        with netns.entered(near):
            caller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with echo, caller:
            for one in (echo, caller):
                one.settimeout(20)
            caller.sendto(b"warm", ("10.1.0.2", 7))
            assert echo.recv(100) == b"warm"
            Weather(delay_seconds=0.015).save(weather)
            relay.signal(signal.SIGHUP)

            def there_seconds() -> float:
                sent_at = time.monotonic()
                caller.sendto(b"hello", ("10.1.0.2", 7))
                data, whom = echo.recvfrom(100)
                there = time.monotonic() - sent_at
                echo.sendto(data, whom)
                assert caller.recv(100) == b"hello"
                return there

            await asyncio.sleep(0.5)
            for _ in range(200):  # until it has heard: a machine that stands still delays one frame, not five in a row
                if min(there_seconds() for _ in range(5)) >= 0.015:
                    break
                await asyncio.sleep(0.05)
            for _ in range(20):
                assert there_seconds() >= 0.015, "never early"
        relay.signal(15)
        await procs.wait_gone([relay.pid], 20)
        told = json.loads(out.read_text())["ways"]
        assert told["from a"]["carried"] >= 20
        assert told["to a"]["carried"] >= 20
        assert told["from a"]["lost"] == told["from a"]["dropped"] == 0
    finally:
        if relay is not None:
            relay.signal(9)
        for namespace in (near, middle, far):
            netns.remove(namespace)


async def test_a_device_that_is_not_there_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    CALM.save(tmp_path / "weather")
    command = [sys.executable, "-m", "tunnelswitch_lab.relay", "--link", "nonesuch:lo"]
    command += ["--weather", str(tmp_path / "weather"), "--out", str(tmp_path / "out")]
    done = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, complaint = await done.communicate()
    assert done.returncode == 1
    assert complaint.count(b"\n") == 1
    assert b"FROM:TO" in complaint
