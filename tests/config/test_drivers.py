"""The tables of the drivers: virtual machines, guests under Xen, and what each service must have."""

from __future__ import annotations

import pytest
from texts import EXAMPLE, complaints

from tunnelswitch.config import parse

VM = (
    EXAMPLE[: EXAMPLE.index("[services.pbx.exec]")].replace('driver = "exec"', 'driver = "colo"')
    + """[services.pbx.colo]
qmp_socket = "/run/pbx/qmp-{site}.sock"
quickack = true
[services.pbx.colo.sites.primary]
migration_address = "10.8.0.1:7001"
device = "t1"
[services.pbx.colo.sites.secondary]
migration_address = "10.8.0.2:7001"
device = "t1"
"""
    + EXAMPLE[EXAMPLE.index("[detection]") :]
)
VM_CASES = {
    "no table": (
        VM[: VM.index("[services.pbx.colo]")] + VM[VM.index("[detection]") :],
        'services.pbx.colo: is missing, and driver is "colo"; add the table [services.pbx.colo]',
    ),
    "relative socket": (
        VM.replace("/run/pbx/qmp", "qmp"),
        'services.pbx.colo.qmp_socket: "qmp-{site}.sock" is not an absolute path; give the socket\'s whole path',
    ),
    "no port": (
        VM.replace("10.8.0.1:7001", "10.8.0.1"),
        'services.pbx.colo.sites.primary.migration_address: "10.8.0.1" is not an address to listen on; '
        "write HOST:PORT or [IPV6]:PORT, an address on T1",
    ),
    "a name where an address is needed": (
        VM.replace("10.8.0.1:7001", "t1.example:7001"),
        'services.pbx.colo.sites.primary.migration_address: "t1.example:7001" is a name, and quickack is asked for; '
        "write the address on T1",
    ),
    "same address": (
        VM.replace("10.8.0.2:7001", "10.8.0.1:7001"),
        'services.pbx.colo.sites.secondary.migration_address: "10.8.0.1:7001" is also '
        "services.pbx.colo.sites.primary.migration_address; give every site an address of its own",
    ),
    "no device": (
        VM.replace('device = "t1"\n', "", 1),
        "services.pbx.colo.sites.primary.device: is missing, and quickack is asked for; "
        "name the device that carries T1",
    ),
    "not a device": (
        VM.replace('device = "t1"', 'device = "t1 "', 1),
        'services.pbx.colo.sites.primary.device: "t1 " is not a device\'s name; '
        "give a network device of at most 15 characters",
    ),
    "not an id": (
        VM.replace("quickack = true", 'mute_object = ""'),
        'services.pbx.colo.mute_object: "" is not an id; '
        "give the id of the object that keeps a standby silent, of letters, digits and _.-",
    ),
    "not a server": (
        VM.replace("colo.sites.secondary", "colo.sites.gateway"),
        "services.pbx.colo.sites.gateway: is no server of the service's group; "
        "remove it; the servers are primary, secondary",
    ),
    "interval": (
        VM.replace("quickack = true", "checkpoint_interval_ms = 1"),
        "services.pbx.colo.checkpoint_interval_ms: is 1; give milliseconds from 10 to 60000",
    ),
}


def test_a_virtual_machine() -> None:
    colo = parse(VM, "test.toml").services["pbx"].colo
    assert colo is not None
    assert (colo.checkpoint_interval_ms, colo.mute_object) == (100, "mute0")
    assert colo.sites["secondary"].migration_address == "10.8.0.2:7001"


XEN = (
    EXAMPLE[: EXAMPLE.index("[services.pbx.exec]")].replace('driver = "exec"', 'driver = "xen"')
    + """[services.pbx.xen]
keeper_socket = "/run/xenkeeper/pbx.sock"
[services.pbx.xen.sites.primary]
migration_address = "10.8.0.1:7001"
[services.pbx.xen.sites.secondary]
migration_address = "10.8.0.2:7001"
"""
    + EXAMPLE[EXAMPLE.index("[detection]") :]
)
XEN_CASES = {
    "relative socket": (
        XEN.replace('"/run/xenkeeper/pbx.sock"', '"pbx.sock"'),
        'services.pbx.xen.keeper_socket: "pbx.sock" is not an absolute path; give the socket\'s whole path',
    ),
    "guest": (
        XEN.replace("[services.pbx.xen]", '[services.pbx.xen]\nguest = "a b"'),
        'services.pbx.xen.guest: "a b" is not a guest\'s name; '
        "give the guest's name in xl list, of letters, digits and _.-",
    ),
    "silence too short": (
        XEN.replace("[services.pbx.xen]", "[services.pbx.xen]\nsilence_seconds = 0.5"),
        "services.pbx.xen.silence_seconds: 0.5 is no longer than a checkpoint may take; "
        "give more than interval and stall together, 0.55",
    ),
    "one address twice": (
        XEN.replace("10.8.0.2:7001", "10.8.0.1:7001"),
        'services.pbx.xen.sites.secondary.migration_address: "10.8.0.1:7001" is also '
        "services.pbx.xen.sites.primary.migration_address; give every site an address of its own",
    ),
    "not a server": (
        XEN.replace("xen.sites.secondary", "xen.sites.gateway"),
        "services.pbx.xen.sites.secondary: is missing; add the table [services.pbx.xen.sites.secondary]",
    ),
}


def test_a_guest_under_xen() -> None:
    xen = parse(XEN, "test.toml").services["pbx"].xen
    assert xen is not None
    assert (xen.guest, xen.checkpoint_interval_ms) == ("", 200)
    assert xen.sites["secondary"].migration_address == "10.8.0.2:7001"


CASES = {
    f"{driver}: {case}": told
    for driver, cases in (("vm", VM_CASES), ("xen", XEN_CASES))
    for case, told in cases.items()
}


@pytest.mark.parametrize("case", CASES)
def test_every_mistake_about_a_driver(case: str) -> None:
    text, line = CASES[case]
    assert line in complaints(text)


def test_every_driver_needs_its_table() -> None:
    text = EXAMPLE[: EXAMPLE.index("[services.pbx.exec]")] + EXAMPLE[EXAMPLE.index("[detection]") :]
    assert complaints(text) == [
        'services.pbx.exec: is missing, and driver is "exec"; add the table [services.pbx.exec]'
    ]
