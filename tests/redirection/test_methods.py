"""Every method moves a real client's packets; only what it needs differs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tunnelswitch_lab import teardown
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.redirection.announcing import announcements
from tunnelswitch_lab.redirection.run import PHASES, RedirectOptions, chosen_methods, run_redirect, split


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """A lab's name; what a failed run left is removed."""
    made = f"r{os.getpid()}"
    yield made
    await teardown.remove(Layout(made))


async def moved(name: str, out: Path, *methods: str) -> set[tuple[str, str]]:
    summary = await run_redirect(RedirectOptions(out, methods, 1, name), lambda line: None)
    assert not {cell["system"]: cell["problems"] for cell in summary["cells"] if cell["problems"]}
    assert all(0 < cell["gap_seconds"]["median"] < 30 for cell in summary["cells"])
    return {(cell["system"], cell["fault"]) for cell in summary["cells"]}


@pytest.mark.lab
@pytest.mark.timeout(120)
async def test_clients_follow_an_announcement_on_a_flat_network(name: str, tmp_path: Path) -> None:
    assert await moved(name, tmp_path, "garp") == {("garp", "host-loss"), ("garp", "service-crash")}


@pytest.mark.peers
@pytest.mark.lab
@pytest.mark.timeout(240)
async def test_clients_follow_a_route_and_a_name(name: str, tmp_path: Path) -> None:
    faults = ("host-loss", "service-crash")
    wanted = {(method, fault) for method in ("bgp", "dns") for fault in faults}
    assert await moved(name, tmp_path, "bgp", "dns") == wanted


def test_an_unknown_method_is_named_with_the_known_ones() -> None:
    with pytest.raises(LabError, match="'arp' is not known: tunnel, garp, bgp, dns"):
        chosen_methods(["arp"])
    assert [method.name for method in chosen_methods(["dns", "tunnel"])] == ["tunnel", "dns"]


def test_announcements_say_who_and_where() -> None:
    arp, rarp = announcements("02:00:4d:00:00:0a", "192.168.77.10")
    mac, address = bytes.fromhex("02004d00000a"), bytes([192, 168, 77, 10])
    assert (len(arp), len(rarp)) == (60, 60)
    assert arp[6:14] == mac + bytes.fromhex("0806")
    assert arp[20:22] == b"\0\1"
    assert (arp[22:32], arp[38:42]) == (mac + address, address)
    assert rarp[12:14] == bytes.fromhex("8035")
    assert (rarp[20:22], rarp[22:28], rarp[32:38]) == (b"\0\3", mac, mac)


def test_phases_add_up_to_the_first_packet() -> None:
    spent = split({"verdict": 0.03, "committed": 0.034}, 0.05)
    assert list(spent) == list(PHASES)
    assert sum(spent.values()) == pytest.approx(0.05)
    assert split({"verdict": None, "committed": 0.034}, 0.05) == {}
