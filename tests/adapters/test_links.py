"""Links, addresses and routes in a private namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from netns_bed import Namespace, veth

from tunnelswitch.adapters.links import Links
from tunnelswitch.errors import DataPlaneError


@pytest.fixture
def here(namespaces: Callable[[], Namespace]) -> Namespace:
    return namespaces()


@pytest.fixture
async def links(here: Namespace, namespaces: Callable[[], Namespace]) -> AsyncIterator[Links]:
    await veth(here, "repl0", namespaces(), "other")
    with here.entered():
        opened = Links()
    async with opened as ready:
        yield ready


async def test_a_device_is_set_up_with_mtu_and_address(links: Links) -> None:
    before = await links.link("repl0")
    assert not before.up
    assert before.addresses == ()
    for _ in range(2):  # the second time there is nothing to do
        await links.ensure_up("repl0", mtu_bytes=1400)
        await links.ensure_address("repl0", "10.8.0.1/24")
    after = await links.link("repl0")
    assert after.up
    assert after.mtu_bytes == 1400
    assert after.addresses == ("10.8.0.1/24",)


async def test_the_device_of_an_address_is_found(links: Links) -> None:
    await links.ensure_address("repl0", "10.8.0.1/24")
    await links.ensure_address("repl0", "10.8.0.9/24")
    assert await links.device_with("10.8.0.9") == "repl0"
    assert await links.device_with("10.8.0.2") == ""


async def test_quickack_keeps_the_way_of_the_route(here: Namespace, links: Links) -> None:
    await links.ensure_up("repl0")
    await links.ensure_address("repl0", "10.8.0.1/24")
    async with here.netlink() as ip:
        await ip.route("add", dst="10.7.0.0/16", gateway="10.8.0.254")
    for peer, gateway in (("10.8.0.2", None), ("10.7.0.9", "10.8.0.254")):
        for _ in range(2):
            await links.ensure_quickack("repl0", peer)
        async with here.netlink() as ip:
            routes = [route async for route in await ip.route("dump", dst=f"{peer}/32")]
        (route,) = [route for route in routes if route.get_attr("RTA_DST") == peer and route["dst_len"] == 32]
        assert route.get_attr("RTA_METRICS").get_attr("RTAX_QUICKACK") == 1
        assert route.get_attr("RTA_GATEWAY") == gateway
        assert route.get_attr("RTA_PREFSRC") == "10.8.0.1"


async def test_what_is_wrong_is_said_with_what_to_do(links: Links) -> None:
    with pytest.raises(DataPlaneError, match="no network device nothing0"):
        await links.link("nothing0")
    with pytest.raises(DataPlaneError, match=r"route to 10\.99\.0\.1"):
        await links.ensure_quickack("repl0", "10.99.0.1")


async def test_a_rate_takes_the_place_of_the_device_s_queue_and_of_an_earlier_rate(
    here: Namespace, links: Links
) -> None:
    await links.ensure_up("repl0")
    for mbit in (100, 20):
        await links.limit_rate("repl0", mbit)
    index = (await links.link("repl0")).index
    async with here.netlink() as ip:
        queues = [queue async for queue in await ip.get_qdiscs(index=index)]
    (queue,) = [queue for queue in queues if queue["index"] == index]
    assert queue.get_attr("TCA_KIND") == "tbf"
    assert queue.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")["rate"] == 20_000_000 // 8
    with pytest.raises(DataPlaneError):
        await links.limit_rate("absent0", 20)
