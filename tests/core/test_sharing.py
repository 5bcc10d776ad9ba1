"""Services of one group that name the same two keys share the tunnels, which Algorithm 1 switches as one pair."""

from __future__ import annotations

from tunnelswitch.core.topology import Group, Service, tunnel_ends, wanted_ends

ADDRESSES = {"primary": "10.0.0.1", "secondary": "10.0.0.2", "east": "10.0.0.3", "west": "10.0.0.4"}
GROUP = Group(
    name="voip",
    preferred="primary",
    standby="secondary",
    gateways=("east", "west"),
    voters=tuple(ADDRESSES),
    services=(Service("pbx", "br-a", 2, 3), Service("sbc", "br-a", 2, 3), Service("db", "br-b", 4, 5)),
)


def ends(site: str) -> dict[str, tuple[str, str, int]]:
    return {end.interface: (end.bridge, end.remote_site, end.key) for end in tunnel_ends(GROUP, site, ADDRESSES)}


def test_those_that_share_have_one_pair_named_after_the_first() -> None:
    assert ends("east") == {
        "t2-pbx": ("br-a", "primary", 2),
        "t3-pbx": ("br-a", "secondary", 3),
        "t2-db": ("br-b", "primary", 4),
        "t3-db": ("br-b", "secondary", 5),
    }
    assert set(ends("primary")) == {"t2-pbx", "t2-pbx.1", "t2-db", "t2-db.1"}


def test_each_pair_has_exactly_one() -> None:
    gateway, server = tunnel_ends(GROUP, "east", ADDRESSES), tunnel_ends(GROUP, "primary", ADDRESSES)
    for present in (frozenset[str](), frozenset({"t2-pbx", "t3-pbx", "t2-db"}), frozenset({"t3-db"})):
        moved = wanted_ends(GROUP, "east", gateway, present, running="secondary")
        assert moved == {"t3-pbx", "t3-db"}
    assert wanted_ends(GROUP, "primary", server, frozenset(), running="primary") == {e.interface for e in server}
    assert wanted_ends(GROUP, "primary", server, frozenset(), running="secondary") == frozenset()
