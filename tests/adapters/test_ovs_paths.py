"""The probe mesh on real switches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from three_sites import ADDRESSES, CLUSTER, Bed, Events, until

from aioovs import Database
from tunnelswitch.adapters.links import Links
from tunnelswitch.adapters.ovs_paths import OvsPaths, probe_interface, probe_key
from tunnelswitch.core.events import PathChanged
from tunnelswitch.core.facts import Path

pytestmark = pytest.mark.ovs

PRIMARY_UP, PRIMARY_DOWN, PRIMARY_UNKNOWN = (
    PathChanged("primary", path) for path in (Path.UP, Path.DOWN, Path.UNKNOWN)
)
# Three of these are longer than a machine stands still: a session that must not end does not.
PATIENT_SECONDS = 1.0


@pytest.fixture
async def mesh(databases: dict[str, Database], events: Events) -> AsyncIterator[Callable[..., OvsPaths]]:
    """Makes the adapter of a site; the gateway's tells `events`."""
    made: list[OvsPaths] = []

    def make(
        site: str,
        interval_seconds: float = 0.05,
        probe_bridge: str = "br-probe",
        widened: Callable[[str], int] | None = None,
        like_bridges: tuple[str, ...] = ("br-svc",),
        underlay_device: Callable[[], Awaitable[str]] | None = None,
    ) -> OvsPaths:
        made.append(
            OvsPaths(
                databases[site],
                cluster=CLUSTER,
                site=site,
                peers={peer: address for peer, address in ADDRESSES.items() if peer != site},
                probe_bridge=probe_bridge,
                like_bridges=like_bridges,
                interval_seconds=interval_seconds,
                multiplier=3,
                service_keys=(2, 3),
                widened=widened,
                underlay_device=underlay_device,
                emit=events.append if site == "gateway" else lambda event: None,
            )
        )
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def start_all(
    mesh: Callable[..., OvsPaths],
    events: Events,
    widened: Callable[[str], int] | None = None,
    interval_seconds: float = 0.05,
) -> dict[str, OvsPaths]:
    paths = {site: mesh(site, interval_seconds, widened=widened) for site in ADDRESSES}
    for one in paths.values():
        await one.start()
    for site in ("primary", "secondary"):
        await events.until(lambda event, site=site: event == PathChanged(site, Path.UP), f"{site} up")
    return paths


async def test_a_cut_link_is_told_and_its_return_too(bed: Bed, mesh: Callable[..., OvsPaths], events: Events) -> None:
    await start_all(mesh, events)
    events.clear()
    await bed.wan.set_down("primary")
    await events.until(lambda event: event == PRIMARY_DOWN, "down")

    def said_last(site: str) -> PathChanged | None:
        return next((event for event in reversed(events) if event.site == site), None)

    # A machine that stood still loses the other path, too, but not for long.
    await until(lambda: said_last("secondary") in (None, PathChanged("secondary", Path.UP)), "the other one is up")
    assert said_last("primary") == PRIMARY_DOWN
    events.clear()
    await bed.restore()
    await events.until(lambda event: event == PRIMARY_UP, "up again")


async def test_the_probe_bridge_is_ours_and_forwards_nothing(
    bed: Bed, mesh: Callable[..., OvsPaths], events: Events
) -> None:
    await start_all(mesh, events)
    switch = bed.switches["gateway"]
    assert switch.vsctl("get", "bridge", "br-probe", "fail_mode", "datapath_type").split() == ["secure", "netdev"]
    assert switch.vsctl("get", "bridge", "br-probe", "external_ids:tunnelswitch") == CLUSTER
    assert sorted(switch.vsctl("list-ports", "br-probe").split()) == ["bfd-primary", "bfd-secondary"]
    keys = {
        bed.switches[site].vsctl("get", "interface", port, "options:key")
        for site, port in (("gateway", "bfd-primary"), ("primary", "bfd-gateway"))
    }
    assert len(keys) == 1


async def test_a_lost_database_is_blindness_not_death(bed: Bed, mesh: Callable[..., OvsPaths], events: Events) -> None:
    await start_all(mesh, events, interval_seconds=PATIENT_SECONDS)
    events.clear()
    bed.switches["gateway"].kill_server()
    await events.until(lambda event: event == PRIMARY_UNKNOWN, "unknown")
    await events.until(lambda event: event == PathChanged("secondary", Path.UNKNOWN), "unknown")
    await asyncio.sleep(0.5)
    assert {event.path for event in events} == {Path.UNKNOWN}
    bed.switches["gateway"].start_server()
    await events.until(lambda event: event == PRIMARY_UP, "up again")


async def test_what_was_changed_or_deleted_by_hand_is_repaired(
    bed: Bed, mesh: Callable[..., OvsPaths], events: Events
) -> None:
    await start_all(mesh, events)
    switch = bed.switches["gateway"]
    events.clear()
    switch.vsctl("set", "interface", "bfd-primary", "bfd:enable=false")
    await events.until(lambda event: event == PRIMARY_UP, "repaired")
    events.clear()
    switch.vsctl("del-br", "br-probe")
    await events.until(lambda event: event == PRIMARY_UNKNOWN, "gone")
    await events.until(lambda event: event == PRIMARY_UP, "made again")


async def test_multipliers_are_followed_without_a_word_about_the_path(
    bed: Bed, mesh: Callable[..., OvsPaths], events: Events
) -> None:
    wanted = {"primary": 3, "secondary": 3, "gateway": 3}
    await start_all(mesh, events, wanted.__getitem__, PATIENT_SECONDS)
    events.clear()
    wanted["primary"] = 5
    switch = bed.switches["gateway"]

    def multiplier(port: str) -> str:
        return switch.vsctl("get", "interface", port, "bfd:mult").strip('"')

    await until(lambda: multiplier("bfd-primary") == "5", "the wider multiplier")
    assert multiplier("bfd-secondary") == "3"
    assert not events, "the session went on"
    await bed.wan.set_down("primary")
    await events.until(lambda event: event == PRIMARY_DOWN, "down all the same")


async def test_timers_follow_the_configuration_and_left_over_probes_go(
    bed: Bed, mesh: Callable[..., OvsPaths], events: Events
) -> None:
    paths = await start_all(mesh, events)
    await paths["gateway"].close()
    switch = bed.switches["gateway"]
    switch.vsctl(
        "add-port",
        "br-probe",
        "bfd-gone",
        "--",
        "set",
        "interface",
        "bfd-gone",
        "type=gre",
        "options:remote_ip=10.9.0.9",
        f"external_ids:tunnelswitch={CLUSTER}",
        "external_ids:tunnelswitch-probe=gone",
        "--",
        "set",
        "port",
        "bfd-gone",
        f"external_ids:tunnelswitch={CLUSTER}",
    )
    await asyncio.sleep(0.1)
    await mesh("gateway", interval_seconds=0.02).start()

    await until(lambda: switch.vsctl("get", "interface", "bfd-primary", "bfd:min_tx") == '"20"', "new timer")
    await until(lambda: "bfd-gone" not in switch.vsctl("list-ports", "br-probe"), "left over probe gone")


async def test_a_probe_bridge_of_somebody_else_is_refused(
    bed: Bed, mesh: Callable[..., OvsPaths], events: Events
) -> None:
    before = bed.switches["gateway"].vsctl("list", "bridge", "br-phy")
    one = mesh("gateway", probe_bridge="br-phy")
    await one.start()
    await until(lambda: "not ours" in one.problem, "refused")
    assert bed.switches["gateway"].vsctl("list", "bridge", "br-phy") == before
    assert set(events) == {PRIMARY_UNKNOWN, PathChanged("secondary", Path.UNKNOWN)}


async def test_without_bridges_of_its_own_a_site_probes_as_its_underlay_does(
    bed: Bed, mesh: Callable[..., OvsPaths], events: Events
) -> None:
    switch = bed.switches["gateway"]

    async def device() -> str:
        with bed.sites["gateway"].entered():
            links = Links()
        async with links:
            return await links.device_with(ADDRESSES["gateway"])

    for site in ("primary", "secondary"):
        await mesh(site).start()
    switch.vsctl("add-br", "br-first", wait=False)  # of the kernel's datapath, and no way for a userspace tunnel
    try:
        one = mesh("gateway", like_bridges=(), underlay_device=device)
        await one.start()
        await events.until(lambda event: event == PRIMARY_UP, "up")
        assert switch.vsctl("get", "bridge", "br-probe", "datapath_type") == "netdev"
        assert one.problem == ""
    finally:
        switch.vsctl("del-br", "br-first", wait=False)


async def test_where_no_device_has_the_underlay_address_any_bridge_is_a_model(
    bed: Bed, mesh: Callable[..., OvsPaths], events: Events
) -> None:
    one = mesh("gateway", like_bridges=())
    await one.start()
    switch = bed.switches["gateway"]
    await until(lambda: "br-probe" in switch.vsctl("list-br").split(), "the probe bridge")
    assert switch.vsctl("get", "bridge", "br-probe", "datapath_type") == "netdev"


async def test_a_bridge_that_is_named_and_missing_is_said(bed: Bed, mesh: Callable[..., OvsPaths]) -> None:
    one = mesh("gateway", like_bridges=("br-nothing",))
    await one.start()
    await until(lambda: "br-nothing exists" in one.problem, "said")


def test_both_ends_find_the_same_key_beside_those_of_the_services() -> None:
    key = probe_key("lab", "a", "b")
    assert probe_key("lab", "b", "a") == key
    assert probe_key("lab", "b", "a", taken=(key, key + 1)) == probe_key("lab", "a", "b", taken=(key, key + 1))
    assert probe_key("lab", "a", "b", taken=(key,)) not in (key, 0)
    assert probe_key("other", "a", "b") != key


def test_interface_names_fit_and_differ() -> None:
    names = {probe_interface(site) for site in ("primary", "a-very-long-site-name", "a-very-long-site-namf")}
    assert len(names) == 3
    assert all(len(name) <= 15 for name in names)
