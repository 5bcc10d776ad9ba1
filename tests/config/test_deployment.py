"""The deployment file: what it comes to."""

from __future__ import annotations

import re

import pytest
from texts import EXAMPLE, ROOT, changed, complaints

from tunnelswitch.adapters.client_packets import ClientPackets
from tunnelswitch.config import load, parse
from tunnelswitch.core.topology import tunnel_ends


def test_the_example() -> None:
    deployment = load(ROOT / "deploy/example.toml")
    (group,) = deployment.core_groups()
    assert (group.preferred, group.standby, group.gateways) == ("primary", "secondary", ("gateway",))
    assert (group.automatic, group.hysteresis_seconds) == (True, 5.0)
    assert deployment.voters() == group.voters == ("primary", "secondary", "gateway")
    assert deployment.addresses()["gateway"] == "10.9.0.3"
    assert deployment.detection.window_seconds == pytest.approx(0.06)
    assert deployment.services_at("secondary") == ("pbx",)
    assert deployment.services_at("gateway") == ()
    assert deployment.groups_at("gateway") == (group,)
    ends = tunnel_ends(group, "gateway", deployment.addresses())
    assert [(end.label, end.key, end.remote_address) for end in ends] == [("T2", 2, "10.9.0.1"), ("T3", 3, "10.9.0.2")]


def test_defaults() -> None:
    text = EXAMPLE[: EXAMPLE.index("[detection]")]
    text = re.sub(r"(?m)^voters.*\n", "", text)
    deployment = parse(text, "test.toml")
    assert deployment.core_groups()[0].voters == ("primary", "secondary", "gateway")
    assert (deployment.runtime.slice_seconds, deployment.runtime.realtime_priority) == (0.0001, 0)


def test_the_floor_holds_the_window_up() -> None:
    deployment = parse(changed("floor_seconds = 0.0", "floor_seconds = 0.5"), "test.toml")
    assert deployment.detection.window_seconds == 0.5


def test_the_ceiling_is_the_fence_unless_it_is_given() -> None:
    assert parse(EXAMPLE, "test.toml").detection.limits.ceiling_seconds == 1.0
    given = changed("fence_after_seconds = 1.0", "fence_after_seconds = 1.0\nceiling_seconds = 0.3")
    assert parse(given, "test.toml").detection.limits.ceiling_seconds == 0.3


def test_immutable() -> None:
    deployment = parse(EXAMPLE, "test.toml")
    with pytest.raises(AttributeError):
        deployment.detection.multiplier = 9  # type: ignore[misc]


def with_services(count: int) -> str:
    """The example with so many services in its group."""
    hooks = EXAMPLE[EXAMPLE.index("[services.pbx.exec]") : EXAMPLE.index("[detection]")]
    more = [
        f'[services.s{number}]\ndriver = "exec"\nbridge = "br-svc"\nt2_key = {2 * number}\nt3_key = {2 * number + 1}\n'
        f'address = "192.168.{number % 5}.{number // 5}"\n' + hooks.replace("services.pbx", f"services.s{number}")
        for number in range(2, count + 1)
    ]
    names = ", ".join(f'"s{number}"' for number in range(2, count + 1))
    return changed('services = ["pbx"]', f'services = ["pbx", {names}]') + "\n" + "\n".join(more)


def test_a_gateway_takes_as_many_services_as_its_filter_can_tell_apart() -> None:
    deployment = parse(with_services(1000), "test.toml")
    addresses = {name: service.address for name, service in deployment.services.items()}
    ClientPackets("client0", site="gateway", services=addresses, emit=lambda event: None)
    assert complaints(with_services(1001)) == [
        "sites.gateway: is a gateway of 1001 services; one can watch the packets of 1000; "
        "give some groups another gateway"
    ]


def test_services_of_one_group_and_bridge_may_share_both_tunnels_and_nobody_else_may() -> None:
    text = with_services(2)
    shared = text.replace("t2_key = 4\nt3_key = 5", "t2_key = 2\nt3_key = 3")
    (group,) = parse(shared, "test.toml").core_groups()
    assert [service.name for service in group.carriers()] == ["pbx"]
    remedy = "give every tunnel a GRE key of its own, or let the two services share both keys"
    half = text.replace("t2_key = 4", "t2_key = 2")
    assert complaints(half) == [f"services.s2.t2_key: 2 is also services.pbx.t2_key; {remedy}"]
    elsewhere = shared.replace('bridges = ["br-svc"]', 'bridges = ["br-svc", "br-two"]')
    elsewhere = elsewhere.replace(
        '[services.s2]\ndriver = "exec"\nbridge = "br-svc"', '[services.s2]\ndriver = "exec"\nbridge = "br-two"'
    )
    assert len(complaints(elsewhere)) == 2


@pytest.mark.parametrize("name", ["ten-letters", "Upper", "a.b"])
def test_service_names_fit_into_interface_names(name: str) -> None:
    text = EXAMPLE.replace("services.pbx", f'services."{name}"').replace('["pbx"]', f'["{name}"]')
    (line,) = complaints(text)
    assert "is not a service's name; use 1 to 9 of a-z, 0-9 and -" in line


def test_two_hosts_may_both_listen_on_loopback() -> None:
    text = EXAMPLE.replace("10.9.0.1:9101", "127.0.0.1:9101").replace("10.9.0.2:9101", "127.0.0.1:9101")
    parse(text, "test.toml")


def test_a_group_that_only_an_operator_moves_may_have_two_voters() -> None:
    text = changed('voters = ["primary", "secondary", "gateway"]', 'voters = ["secondary", "gateway"]')
    parse(text.replace("automatic = true", "automatic = false"), "test.toml")
