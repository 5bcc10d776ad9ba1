"""Client tunnels on real switches. What a client's packet does is the proof."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from three_sites import CLUSTER, ENDS, T2, T3, Bed, Client, Events, stamp, switch_to, until

from aioovs import Database
from tunnelswitch.adapters.ovs_tunnels import OvsTunnels
from tunnelswitch.core.events import DataPlaneLost, DataPlaneSeen, SwitchApplied, SwitchConflict, SwitchFailed
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.dataplane import MONITORED
from tunnelswitch.processes.darken import darken

pytestmark = pytest.mark.ovs


@pytest.fixture
async def tunnels(databases: dict[str, Database], events: Events) -> AsyncIterator[Callable[[str], OvsTunnels]]:
    """Makes the adapter of a site; the gateway's tells `events`."""
    made: list[OvsTunnels] = []

    def make(site: str) -> OvsTunnels:
        made.append(
            OvsTunnels(
                databases[site],
                cluster=CLUSTER,
                site=site,
                ends=ENDS[site],
                groups=("voip",),
                allowed_bridges=("br-svc",),
                emit=events.append if site == "gateway" else lambda event: None,
            )
        )
        return made[-1]

    yield make
    for one in made:
        await one.close()


def stored(bed: Bed) -> str:
    return bed.switches["gateway"].vsctl("get", "Open_vSwitch", ".", "external_ids")


async def test_the_clients_packets_follow_the_switch(bed: Bed, tunnels: Callable[[str], OvsTunnels]) -> None:
    gateway, primary, secondary = (tunnels(site) for site in ("gateway", "primary", "secondary"))
    async with Client(bed) as client:
        assert await client.who(seconds=0.2) is None
        for site in (primary, secondary):
            end = ENDS["primary" if site is primary else "secondary"]
            assert isinstance(await site.apply(switch_to(stamp(1), add=end)), SwitchApplied)

        done = await gateway.apply(switch_to(stamp(1), add=(T2,)))
        assert isinstance(done, SwitchApplied)
        assert done.present == {T2.interface}
        assert done.submitted_at <= done.committed_at <= done.applied_at
        assert await client.who() == "primary"

        done = await gateway.apply(switch_to(stamp(2), stamp(1), add=(T3,), remove=(T2,)))
        assert isinstance(done, SwitchApplied)
        assert done.present == {T3.interface}
        await client.until("secondary")
        assert {await client.who() for _ in range(20)} == {"secondary"}
    assert bed.switches["gateway"].vsctl("list-ports", "br-svc").split() == ["svc0", T3.interface]
    assert f'"tunnelswitch:{CLUSTER}:voip"="{stamp(2)}"' in stored(bed)


async def test_a_stale_writer_changes_nothing_and_learns_what_is_stored(
    bed: Bed, tunnels: Callable[[str], OvsTunnels]
) -> None:
    gateway = tunnels("gateway")
    await gateway.apply(switch_to(stamp(1), add=(T2,)))
    await gateway.apply(switch_to(stamp(2), stamp(1), add=(T3,), remove=(T2,)))
    late = await gateway.apply(switch_to(stamp(2, "b"), stamp(1), add=(T2,), remove=(T3,)))
    conflict = SwitchConflict("voip", stamp(2), frozenset({T3.interface}))
    assert late == conflict
    assert await gateway.apply(switch_to(stamp(3), add=(T2,), remove=(T3,))) == conflict
    assert bed.switches["gateway"].vsctl("list-ports", "br-svc").split() == ["svc0", T3.interface]


async def test_nothing_is_sent_when_all_is_as_it_should_be(bed: Bed, tunnels: Callable[[str], OvsTunnels]) -> None:
    gateway = tunnels("gateway")
    await gateway.apply(switch_to(stamp(1), add=(T2,)))
    before = bed.switches["gateway"].vsctl("get", "Open_vSwitch", ".", "next_cfg")
    again = await gateway.apply(switch_to(stamp(1), stamp(1), add=(T2,)))
    assert isinstance(again, SwitchApplied)
    assert bed.switches["gateway"].vsctl("get", "Open_vSwitch", ".", "next_cfg") == before


async def test_right_rows_that_nobody_follows_are_not_applied(bed: Bed, tunnels: Callable[[str], OvsTunnels]) -> None:
    gateway = tunnels("gateway")
    await gateway.apply(switch_to(stamp(1), add=(T2,)))
    vswitchd = bed.switches["gateway"]._processes["ovs-vswitchd"]
    vswitchd.send_signal(signal.SIGSTOP)
    try:
        move = replace(switch_to(stamp(2), stamp(1), add=(T3,), remove=(T2,)), deadline_seconds=0.3)
        assert isinstance(await gateway.apply(move), SwitchFailed)
        again = replace(switch_to(stamp(2), stamp(2), add=(T3,)), deadline_seconds=0.3)
        assert isinstance(await gateway.apply(again), SwitchFailed), "OVSDB has it, the data plane does not"
    finally:
        vswitchd.send_signal(signal.SIGCONT)
    assert isinstance(await gateway.apply(switch_to(stamp(2), stamp(2), add=(T3,))), SwitchApplied)


async def test_a_repair_that_was_given_up_and_lands_late_leaves_no_second_tunnel(
    bed: Bed, tunnels: Callable[[str], OvsTunnels]
) -> None:
    """OVSDB hangs: a repair under the stamp in force is given up, and the next decision is made without its tunnel."""
    gateway = tunnels("gateway")
    await gateway.apply(switch_to(stamp(1)))
    server = bed.switches["gateway"]._processes["ovsdb-server"]
    server.send_signal(signal.SIGSTOP)
    try:
        repair = replace(switch_to(stamp(1), stamp(1), add=(T2,), remove=(T3,)), deadline_seconds=0.05)
        assert isinstance(await gateway.apply(repair), SwitchFailed)
        move = asyncio.create_task(gateway.apply(switch_to(stamp(2), stamp(1), add=(T3,), remove=(T2,))))
        await asyncio.sleep(0.05)
    finally:
        server.send_signal(signal.SIGCONT)
    done = await move
    assert isinstance(done, SwitchApplied), done
    assert done.present == {T3.interface}
    assert bed.switches["gateway"].vsctl("list-ports", "br-svc").split() == ["svc0", T3.interface]


async def test_a_port_of_somebody_else_is_never_touched(
    bed: Bed, tunnels: Callable[[str], OvsTunnels], events: Events
) -> None:
    switch = bed.switches["gateway"]
    switch.vsctl("add-port", "br-svc", T2.interface, "--", "set", "interface", T2.interface, "type=internal")
    gateway = tunnels("gateway")
    await gateway.start()
    await events.until(lambda event: event == DataPlaneSeen(foreign=frozenset({T2.interface})), "alarm")
    refused = await gateway.apply(switch_to(stamp(1), add=(T2,)))
    assert isinstance(refused, SwitchFailed)
    assert "not ours" in refused.error
    removed = await gateway.apply(switch_to(stamp(1), add=(T3,), remove=(T2,)))
    assert isinstance(removed, SwitchApplied)
    assert switch.vsctl("get", "interface", T2.interface, "type") == "internal"


@pytest.mark.parametrize(
    ("allowed", "bridge", "words"),
    [("br-svc", "br-phy", "not ours to use"), ("br-none", "br-none", "is not there")],
)
async def test_a_bridge_that_is_not_ours_or_not_there_is_refused(
    bed: Bed, databases: dict[str, Database], allowed: str, bridge: str, words: str
) -> None:
    end = replace(T2, bridge=bridge)
    one = OvsTunnels(
        databases["gateway"],
        cluster=CLUSTER,
        site="gateway",
        ends=(end,),
        groups=("voip",),
        allowed_bridges=(allowed,),
        emit=lambda event: None,
    )
    refused = await one.apply(switch_to(stamp(1), add=(end,)))
    assert isinstance(refused, SwitchFailed)
    assert words in refused.error
    assert T2.interface not in bed.switches["gateway"].vsctl("list-ports", "br-phy")
    assert "tunnelswitch" not in stored(bed)


async def test_a_tunnel_that_was_changed_by_hand_is_seen_and_repaired(
    bed: Bed, tunnels: Callable[[str], OvsTunnels], events: Events
) -> None:
    gateway, switch = tunnels("gateway"), bed.switches["gateway"]
    await gateway.start()
    await gateway.apply(switch_to(stamp(1), add=(T2,)))
    switch.vsctl("set", "interface", T2.interface, "options:key=77")
    seen = await events.until(lambda event: isinstance(event, DataPlaneSeen) and event.broken, "broken")
    assert seen.broken == seen.present == {T2.interface}
    assert isinstance(await gateway.apply(switch_to(stamp(1), stamp(1), add=(T2,))), SwitchApplied)
    assert switch.vsctl("get", "interface", T2.interface, "options:key") == '"2"'
    await until(lambda: events[-1] == DataPlaneSeen({"voip": stamp(1)}, frozenset({T2.interface})), "repaired")


async def test_a_port_deleted_by_hand_is_seen(bed: Bed, tunnels: Callable[[str], OvsTunnels], events: Events) -> None:
    gateway = tunnels("gateway")
    await gateway.start()
    await gateway.apply(switch_to(stamp(1), add=(T2,)))
    await events.until(lambda event: event == DataPlaneSeen({"voip": stamp(1)}, frozenset({T2.interface})), "ours")
    bed.switches["gateway"].vsctl("del-port", T2.interface)
    await events.until(lambda event: event == DataPlaneSeen({"voip": stamp(1)}), "gone")


async def test_something_that_is_no_stamp_is_reported_and_never_overwritten(
    bed: Bed, tunnels: Callable[[str], OvsTunnels], events: Events
) -> None:
    switch = bed.switches["gateway"]
    switch.vsctl("set", "Open_vSwitch", ".", f'external_ids:"tunnelswitch:{CLUSTER}:voip"=nonsense')
    gateway = tunnels("gateway")
    await gateway.start()
    both = frozenset({T2.interface, T3.interface})
    await events.until(lambda event: event == DataPlaneSeen(foreign=both), "alarm")
    for expected in (None, stamp(1)):
        refused = await gateway.apply(switch_to(stamp(2), expected, add=(T2,)))
        assert isinstance(refused, SwitchFailed)
        assert "ovs-vsctl remove" in refused.error
    assert "nonsense" in stored(bed)


async def test_a_stamp_below_the_stored_one_is_refused(bed: Bed, tunnels: Callable[[str], OvsTunnels]) -> None:
    gateway = tunnels("gateway")
    await gateway.apply(switch_to(stamp(5), add=(T2,)))
    refused = await gateway.apply(switch_to(stamp(4), stamp(5), add=(T3,), remove=(T2,)))
    assert isinstance(refused, SwitchFailed)
    assert "older" in refused.error


async def test_a_tunnel_that_the_switch_cannot_make_is_a_failure_with_its_reason(
    bed: Bed, tunnels: Callable[[str], OvsTunnels]
) -> None:
    options = f"options:remote_ip={T2.remote_address}"
    bed.switches["gateway"].vsctl(
        "add-port", "br-svc", "other", "--", "set", "interface", "other", "type=gre", options, f"options:key={T2.key}"
    )
    refused = await tunnels("gateway").apply(switch_to(stamp(1), add=(T2,)))
    assert isinstance(refused, SwitchFailed)
    assert "could not create" in refused.error


async def test_a_killed_database_is_told_at_once_and_its_return_too(
    bed: Bed, tunnels: Callable[[str], OvsTunnels], events: Events
) -> None:
    gateway, switch = tunnels("gateway"), bed.switches["gateway"]
    await gateway.start()
    await gateway.apply(switch_to(stamp(1), add=(T2,)))
    here = DataPlaneSeen({"voip": stamp(1)}, frozenset({T2.interface}))
    await events.until(lambda event: event == here, "ours")
    switch.kill_server()
    await events.until(lambda event: isinstance(event, DataPlaneLost), "lost")
    failed = await gateway.apply(switch_to(stamp(2), stamp(1), add=(T3,), remove=(T2,)))
    assert isinstance(failed, SwitchFailed)
    assert "start ovsdb-server" in failed.error
    events.clear()
    switch.start_server()
    await events.until(lambda event: event == here, "seen again")
    done = await gateway.apply(switch_to(stamp(2), stamp(1), add=(T3,), remove=(T2,)))
    assert isinstance(done, SwitchApplied)


async def test_two_writers_of_one_decision_do_not_disturb_each_other(
    bed: Bed, tunnels: Callable[[str], OvsTunnels]
) -> None:
    """The switcher and the gateway's agent may both apply; one wins, the other learns the stamp that it wanted."""
    one, two = tunnels("gateway"), tunnels("gateway")
    await one.apply(switch_to(stamp(1), add=(T2,)))
    both = switch_to(stamp(2), stamp(1), add=(T3,), remove=(T2,))
    results = await asyncio.gather(one.apply(both), two.apply(both))
    kinds = {type(result) for result in results}
    assert SwitchApplied in kinds
    assert kinds <= {SwitchApplied, SwitchConflict}
    for result in results:
        held: Stamp | None = result.stamp if isinstance(result, SwitchApplied) else result.stored
        assert held == stamp(2)
    assert bed.switches["gateway"].vsctl("list-ports", "br-svc").split() == ["svc0", T3.interface]


async def test_a_site_that_booted_carries_nobody_and_believes_no_older_decision(
    bed: Bed, databases: dict[str, Database], tunnels: Callable[[str], OvsTunnels]
) -> None:
    gateway, primary = tunnels("gateway"), tunnels("primary")
    async with Client(bed) as client:
        await primary.apply(switch_to(stamp(2), add=ENDS["primary"]))
        await gateway.apply(switch_to(stamp(2), add=(T2,)))
        assert await client.who() == "primary"

        assert await darken(databases["gateway"], CLUSTER) == [T2.interface]
        await client.until(None)
        assert bed.switches["gateway"].vsctl("list-ports", "br-svc").split() == ["svc0"]
        late = await gateway.apply(switch_to(stamp(1, "b"), stamp(1), add=(T2,)))
        assert late == SwitchConflict("voip", stamp(2), frozenset())
        assert await darken(databases["gateway"], CLUSTER) == []

        await gateway.apply(switch_to(stamp(2), stamp(2), add=(T2,)))
        assert await client.who() == "primary"


async def test_what_is_darkened_is_known_by_its_mark_and_by_nothing_else(
    bed: Bed, databases: dict[str, Database], tunnels: Callable[[str], OvsTunnels]
) -> None:
    """Ends of a service that the file does not name any more go; what is another's, or only measures, stays."""
    await tunnels("gateway").apply(switch_to(stamp(1), add=(T2,)))
    switch = bed.switches["gateway"]
    others: dict[str, dict[str, str]] = {
        "t2-gone": {"tunnelswitch": CLUSTER, "tunnelswitch-service": "gone"},
        "bfd-one": {"tunnelswitch": CLUSTER, "tunnelswitch-probe": "primary"},
        "t2-other": {"tunnelswitch": "another"},
        "t2-plain": {},
    }
    for name, marks in others.items():
        told = [f"external_ids:{key}={value}" for key, value in marks.items()]
        interface = ["--", "set", "Interface", name, "type=internal", *told]
        switch.vsctl("add-port", "br-svc", name, *(["--", "set", "Port", name, *told] if told else []), *interface)
    async with Database(switch.remote, tables=MONITORED) as database:
        assert await darken(database, CLUSTER) == ["t2-gone", T2.interface]
    assert sorted(switch.vsctl("list-ports", "br-svc").split()) == ["bfd-one", "svc0", "t2-other", "t2-plain"]
