"""Output on its way from a machine's tap to a bridge: held, released, real time, and what comes in."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from netns_bed import Namespace, veth

from tunnelswitch.adapters.frames import frame_filter, realtime_keys
from tunnelswitch.config import Output
from tunnelswitch.replication.colo_output import OutputHold

pytestmark = pytest.mark.lab

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x400454CA, 0x2, 0x1000, 0x4000
OPTIONS = Output(machine_device="vm0", bridge_device="hold0", realtime_udp_ports=("5004", "6000-6010"))
GUEST, CLIENT = bytes.fromhex("02004d00000a"), bytes.fromhex("02004d000001")
SETTLE_SECONDS = 0.15


def frame(source_port: int, payload: bytes, *, fragment: int = 0, out: bool = True) -> bytes:
    """An Ethernet frame of the machine (or of its client) with UDP in IPv4; checksums are nobody's business here."""
    head = (CLIENT + GUEST if out else GUEST + CLIENT) + b"\x08\x00"
    length = 28 + len(payload)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 1, fragment, 64, 17, 0, b"\x0a\0\0\x01", b"\x0a\0\0\x02")
    return head + ip + struct.pack("!HHHH", source_port, 9, 8 + len(payload), 0) + payload


class Path:
    """A machine's end (a tap) and the bridge's end of the way that output takes."""

    def __init__(self) -> None:
        self.plug()
        self.bridge = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self.bridge.setsockopt(263, 23, 1)  # not what we send ourselves
        self.bridge.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
        self.bridge.bind(("port0", 3))
        self.hold = OutputHold("vm", OPTIONS, lambda: None, lambda kind: None)

    def plug(self, flags: int = 0) -> None:
        self.machine = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.machine, _TUNSETIFF, struct.pack("16sH22x", b"vm0", _IFF_TAP | _IFF_NO_PI | flags))

    def say(self, *frames: bytes) -> int:
        """The machine sends; returns the host's time after it."""
        for one in frames:
            os.write(self.machine, one)
        return time.time_ns()

    async def until(self, *, ready: bool) -> None:
        """Return when the devices are in the hold's hands, or are not any more."""
        async with asyncio.timeout(10):
            while self.hold.ready is not ready:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def seen(self, least: int = 0) -> list[bytes]:
        """What has reached the bridge: waits for so many frames, and whether more come."""
        found: list[bytes] = []
        async with asyncio.timeout(10):
            self._take(found)
            while len(found) < least:
                await asyncio.sleep(0.005)
                self._take(found)
        await asyncio.sleep(SETTLE_SECONDS)
        self._take(found)
        return found

    def _take(self, found: list[bytes]) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.bridge.recv(2048))

    async def heard(self) -> bytes:
        """The next frame that has reached the machine."""
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(BlockingIOError):
                    return os.read(self.machine, 2048)
                await asyncio.sleep(0.005)

    async def until_held(self, frames: int) -> None:
        async with asyncio.timeout(10):
            while len(self.hold.held) != frames:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        await self.hold.close()
        self.bridge.close()
        os.close(self.machine)


def payloads(frames: list[bytes]) -> list[bytes]:
    return [one[42:] for one in frames]


@pytest.fixture
async def inside(namespaces: Callable[[], Namespace]) -> Callable[..., Coroutine[Any, Any, None]]:
    """Runs a test's body with a path in a namespace of its own."""
    here = namespaces()
    await veth(here, "hold0", here, "port0")
    await here.set_up("port0", arp=False)

    async def run(body: Callable[[Path], Coroutine[Any, Any, None]]) -> None:
        async def work() -> None:
            path = Path()
            try:
                path.hold.start()
                await path.until(ready=True)
                await body(path)
            finally:
                await path.close()

        def there() -> None:
            with here.entered():
                asyncio.run(work())

        await asyncio.to_thread(there)

    return run


async def test_output_waits_for_its_checkpoint_and_not_a_frame_of_the_next_one_leaves(inside: Any) -> None:
    async def body(path: Path) -> None:
        path.hold.follow(guarded=True)
        stopped_at = path.say(frame(5006, b"one"), frame(5006, b"two"))
        path.hold.stopped(stopped_at)
        path.say(frame(5006, b"three"))
        path.hold.committed()
        assert payloads(await path.seen(2)) == [b"one", b"two"]
        assert path.hold.held.covered
        path.hold.stopped(time.time_ns())
        path.hold.committed()
        assert payloads(await path.seen(1)) == [b"three"]

    await inside(body)


async def test_real_time_passes_at_once_and_so_does_what_comes_in(inside: Any) -> None:
    async def body(path: Path) -> None:
        path.hold.follow(guarded=True)
        path.say(frame(5004, b"call"), frame(6007, b"another"), frame(6011, b"not"), frame(5004, b"cut", fragment=1))
        assert payloads(await path.seen(2)) == [b"call", b"another"]
        path.bridge.send(frame(4000, b"question", out=False))
        assert (await path.heard())[42:] == b"question"
        await path.until_held(2)
        await path.hold.close()  # its process ends
        path.say(frame(5004, b"still"), frame(5006, b"never"))
        path.bridge.send(frame(4000, b"again", out=False))
        assert payloads(await path.seen(1)) == [b"still"]
        assert (await path.heard())[42:] == b"again"

    await inside(body)


async def test_without_a_standby_output_leaves_when_the_core_allows_it(inside: Any) -> None:
    async def body(path: Path) -> None:
        path.say(frame(5006, b"early"))
        assert await path.seen() == []
        path.hold.allow(True)
        path.say(frame(5006, b"late"))
        assert payloads(await path.seen(2)) == [b"early", b"late"]
        path.hold.allow(False)
        path.say(frame(5006, b"held"))
        assert await path.seen() == []
        await path.until_held(1)
        path.hold.ended()
        path.hold.allow(True)
        assert await path.seen() == []
        assert path.hold.figures()["output_discarded"] == 1

    await inside(body)


async def test_a_burst_longer_than_a_slice_leaves_whole_and_in_order(inside: Any) -> None:
    async def body(path: Path) -> None:
        path.hold.follow(guarded=True)
        numbers = [str(number).encode() for number in range(300)]
        path.hold.stopped(path.say(*(frame(5006, number) for number in numbers)))
        path.hold.committed()
        assert payloads(await path.seen(len(numbers))) == numbers
        assert path.hold.figures()["output_dropped"] == 0

    await inside(body)


async def test_a_checksum_left_to_the_hardware_is_made_on_the_way(inside: Any) -> None:
    """The pair has no checksum offload, so what travelled along with the frame is carried out there."""

    async def body(path: Path) -> None:
        os.close(path.machine)
        await path.until(ready=False)
        path.plug(_IFF_VNET_HDR)
        await path.until(ready=True)
        path.hold.allow(True)
        partial = struct.pack("=BBHHHH", 1, 0, 0, 0, 34, 6)  # linux/virtio_net.h: NEEDS_CSUM, from where, and whither
        sent = frame(5006, b"data")
        path.say(partial + sent)
        (found,) = await path.seen(1)
        total = sum(struct.unpack("!6H", sent[34:]))
        assert struct.unpack_from("!H", found, 40)[0] == 0xFFFF - (total & 0xFFFF) - (total >> 16)

    await inside(body)


async def test_devices_that_went_away_are_taken_again(inside: Any) -> None:
    async def body(path: Path) -> None:
        os.close(path.machine)  # the tap goes with its last user
        await path.until(ready=False)
        assert path.hold.figures()["output_unheld"] == 1
        path.plug()
        await path.until(ready=True)
        path.hold.allow(True)
        path.say(frame(5006, b"back"), frame(5004, b"call"))
        assert sorted(payloads(await path.seen(2))) == [b"back", b"call"]

    await inside(body)


def test_every_port_of_a_range_is_matched_once() -> None:
    for first, last in ((1, 65535), (5004, 5004), (10000, 20000), (6000, 6010)):
        found = []
        for keys in realtime_keys((first, last)):
            value, _, mask = keys[-1].partition("+")[0].partition("/")
            low, mask_bits = int(value, 16) >> 16, int(mask, 16) >> 16
            found.append(range(low, low + 0x10000 - mask_bits))
        assert [ports.start for ports in found[1:]] == [ports.stop for ports in found[:-1]]
        assert (found[0].start, found[-1].stop) == (first, last + 1)


def test_a_filter_without_ports_only_looks_for_tags() -> None:
    assert len(frame_filter(())) == 4 * 8
