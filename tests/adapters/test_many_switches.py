"""Many groups at one gateway switch together: one transaction, and every group's tunnel is right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from three_sites import ADDRESSES, CLUSTER, Bed, stamp, until

from aioovs import Database
from tunnelswitch.adapters.ovs_tunnels import OvsTunnels
from tunnelswitch.core.actions import ApplyTunnels
from tunnelswitch.core.events import SwitchApplied, SwitchConflict, SwitchFailed
from tunnelswitch.core.topology import Group, Service, Tunnel, tunnel_ends

pytestmark = pytest.mark.ovs

GROUPS = tuple(
    Group(
        name=f"g{number}",
        preferred="primary",
        standby="secondary",
        gateways=("gateway",),
        voters=tuple(ADDRESSES),
        services=(Service(f"s{number}", "br-svc", t2_key=1000 + number, t3_key=2000 + number),),
    )
    for number in range(50)
)
ENDS: dict[str, dict[str, Tunnel]] = {
    group.name: {end.label: end for end in tunnel_ends(group, "gateway", ADDRESSES)} for group in GROUPS
}


@pytest.fixture
async def gateway(databases: dict[str, Database]) -> AsyncIterator[OvsTunnels]:
    tunnels = OvsTunnels(
        databases["gateway"],
        cluster=CLUSTER,
        site="gateway",
        ends=tuple(end for ends in ENDS.values() for end in ends.values()),
        groups=tuple(ENDS),
        allowed_bridges=("br-svc",),
        emit=lambda event: None,
    )
    yield tunnels
    await tunnels.close()


def switch(group: str, epoch: int, *, to: str, away: str, expected: int | None = None) -> ApplyTunnels:
    ends = ENDS[group]
    before = None if expected is None else stamp(expected)
    return ApplyTunnels(group, stamp(epoch), before, (ends[to],), (ends[away],), 20.0)


async def serve_from_primary(gateway: OvsTunnels) -> None:
    answers = await asyncio.gather(*(gateway.apply(switch(group, 1, to="T2", away="T3")) for group in ENDS))
    assert all(isinstance(answer, SwitchApplied) for answer in answers)


def ports(bed: Bed) -> set[str]:
    return set(bed.switches["gateway"].vsctl("list-ports", "br-svc").split()) - {"svc0"}


def next_cfg(bed: Bed) -> int:
    return int(bed.switches["gateway"].vsctl("get", "Open_vSwitch", ".", "next_cfg"))


async def test_fifty_groups_move_in_one_transaction(bed: Bed, gateway: OvsTunnels) -> None:
    await serve_from_primary(gateway)
    before = next_cfg(bed)
    moves = [switch(group, 2, to="T3", away="T2", expected=1) for group in ENDS]
    answers = await asyncio.gather(*(gateway.apply(move) for move in moves))
    for move, answer in zip(moves, answers, strict=True):
        assert isinstance(answer, SwitchApplied)
        assert (answer.group, answer.stamp, answer.present) == (
            move.group,
            stamp(2),
            {ENDS[move.group]["T3"].interface},
        )
    assert ports(bed) == {ends["T3"].interface for ends in ENDS.values()}
    for group, ends in ENDS.items():
        held = bed.switches["gateway"].vsctl(
            "get", "Open_vSwitch", ".", f'external_ids:"tunnelswitch:{CLUSTER}:{group}"'
        )
        assert held.strip('"') == str(stamp(2))
        key = bed.switches["gateway"].vsctl("get", "interface", ends["T3"].interface, "options:key")
        assert key.strip('"') == str(ends["T3"].key)
    assert next_cfg(bed) == before + 1


async def test_a_stale_one_among_them_learns_what_is_stored_and_the_others_move(bed: Bed, gateway: OvsTunnels) -> None:
    await serve_from_primary(gateway)
    await gateway.apply(switch("g7", 3, to="T2", away="T3", expected=1))
    moves = [switch(group, 2, to="T3", away="T2", expected=1) for group in ENDS]
    answers = dict(zip(ENDS, await asyncio.gather(*(gateway.apply(move) for move in moves)), strict=True))
    kept = ENDS["g7"]["T2"].interface
    assert answers.pop("g7") == SwitchConflict("g7", stamp(3), frozenset({kept}))
    assert all(isinstance(answer, SwitchApplied) for answer in answers.values())
    assert ports(bed) == {ENDS[group]["T3"].interface for group in answers} | {kept}


async def test_one_that_cannot_be_does_not_hold_up_the_others(
    bed: Bed, databases: dict[str, Database], gateway: OvsTunnels
) -> None:
    await serve_from_primary(gateway)
    foreign = ENDS["g7"]["T3"].interface
    bed.switches["gateway"].vsctl("add-port", "br-svc", foreign, "--", "set", "interface", foreign, "type=internal")
    rows = databases["gateway"].rows
    await until(lambda: any(row["name"] == foreign for row in rows("Interface")), "we have heard of it")
    moves = [switch(group, 2, to="T3", away="T2", expected=1) for group in ENDS]
    answers = dict(zip(ENDS, await asyncio.gather(*(gateway.apply(move) for move in moves)), strict=True))
    failed = answers.pop("g7")
    assert isinstance(failed, SwitchFailed)
    assert "not ours" in failed.error
    assert all(isinstance(answer, SwitchApplied) for answer in answers.values())
    assert bed.switches["gateway"].vsctl("get", "interface", foreign, "type") == "internal"


async def test_one_whose_time_is_over_when_its_turn_comes_is_not_sent(bed: Bed, gateway: OvsTunnels) -> None:
    """It was decided on what was there long ago, and its gate has given it up."""
    await serve_from_primary(gateway)
    expired = ApplyTunnels("g7", stamp(2), stamp(1), (ENDS["g7"]["T3"],), (ENDS["g7"]["T2"],), -1.0)
    answers = await asyncio.gather(
        gateway.apply(expired), gateway.apply(switch("g8", 2, to="T3", away="T2", expected=1))
    )
    assert [type(answer) for answer in answers] == [SwitchFailed, SwitchApplied]
    assert ENDS["g7"]["T2"].interface in ports(bed)
