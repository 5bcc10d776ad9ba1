"""Output that waits for checkpoints, in the deployment file: what goes together and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnelswitch.config import DeploymentError, parse

EXAMPLE = (Path(__file__).parents[2] / "deploy/example.toml").read_text(encoding="utf-8")
OUTPUT = """[services.pbx.output]
machine_device = "vm0"
bridge_device = "vm0-hold"
"""
PORTS = 'realtime_udp_ports = ["5004", "10000-20000"]\n'
COLO = """[services.pbx.colo]
qmp_socket = "/run/pbx/qmp-{site}.sock"
checkpoint_interval_ms = 100
[services.pbx.colo.sites.primary]
migration_address = "10.8.0.1:7001"
[services.pbx.colo.sites.secondary]
migration_address = "10.8.0.2:7001"
"""
HEAD = EXAMPLE[: EXAMPLE.index("[services.pbx.exec]")].replace('driver = "exec"', 'driver = "colo"')
TAIL = EXAMPLE[EXAMPLE.index("[detection]") :].replace("unanswered_seconds = 0.5", "unanswered_seconds = 1.0")


def deployment(buffering: str, output: str = OUTPUT, colo: str = COLO) -> str:
    return HEAD.replace('buffering = "none"', f'buffering = "{buffering}"') + output + colo + TAIL


def test_full_and_real_time_are_read() -> None:
    full = parse(deployment("full"), "test.toml").services["pbx"]
    assert full.output is not None
    assert (full.output.machine_device, full.output.realtime_ports) == ("vm0", ())
    realtime = parse(deployment("realtime", OUTPUT + PORTS), "test.toml").services["pbx"]
    assert realtime.output is not None
    assert realtime.output.realtime_ports == ((5004, 5004), (10000, 20000))


CASES = {
    "unknown": (deployment("some"), 'services.pbx.buffering: is "some"; give "none", "full" or "realtime"'),
    "no table": (
        deployment("full", ""),
        'services.pbx.output: is missing, and buffering is "full"; add the table [services.pbx.output]',
    ),
    "not used": (
        deployment("none"),
        'services.pbx.output: is given, and buffering is "none"; remove it, or choose full or realtime',
    ),
    "another driver": (
        EXAMPLE.replace('buffering = "none"', 'buffering = "full"'),
        'services.pbx.buffering: "full" is not for the driver "exec"; use the driver colo, or "none"',
    ),
    "no ports": (
        deployment("realtime"),
        'services.pbx.output.realtime_udp_ports: is empty, and buffering is "realtime"; '
        "name the UDP ports that pass at once",
    ),
    "ports that wait": (
        deployment("full", OUTPUT + PORTS),
        'services.pbx.output.realtime_udp_ports: is given, and buffering is "full"; '
        'remove it, or choose buffering = "realtime"',
    ),
    "no port": (
        deployment("realtime", OUTPUT + 'realtime_udp_ports = ["20000-10000"]\n'),
        'services.pbx.output.realtime_udp_ports: "20000-10000" is not a port or range; write "5004" or "10000-20000"',
    ),
    "one device": (
        deployment("full", OUTPUT.replace("vm0-hold", "vm0")),
        'services.pbx.output.bridge_device: "vm0" is also machine_device; '
        "name the tap of the machine, and one end of a veth pair whose other end is on the bridge",
    ),
    "no device": (
        deployment("full", OUTPUT.replace('"vm0"', '"a device too long"')),
        'services.pbx.output.machine_device: "a device too long" is not a device\'s name; '
        "give a network device of at most 15 characters",
    ),
    "no room": (
        deployment("full", OUTPUT + "held_bytes_max = 1\n"),
        "services.pbx.output.held_bytes_max: is 1; give bytes from 65536 to 4294967296",
    ),
    "clients that wait are not cut off": (
        deployment("full", colo=COLO.replace("= 100", "= 400")),
        "detection.unanswered_seconds: 1 is shorter than output of pbx may wait: 1.15 s (checkpoint_interval_ms, "
        "stall_seconds, and 0.4 s until the record says that the standby is lost); "
        "raise it, or shorten the interval: clients that wait for a checkpoint are not cut off",
    ),
    "a rate of nothing": (
        deployment("full", colo=COLO.replace('7001"', '7001"\nrate_mbit = 100', 1)),
        "services.pbx.colo.sites.primary.device: is missing, and rate_mbit is given; name the device that carries T1",
    ),
    "renewed without a limit": (
        deployment("none", "", COLO.replace("= 100", "= 100\nrenew = true", 1)),
        "services.pbx.colo.memory_limit_mb: is missing, and renew is asked for; give what QEMU must not exceed",
    ),
    "renewed and moved": (
        deployment("none", "", COLO.replace("= 100", "= 100\nmemory_limit_mb = 999\nrenew = true", 1)).replace(
            'relief = "manual"', 'relief = "automatic"'
        ),
        'groups.voip.policy.relief: is "automatic", and services.pbx.colo.renew is true: '
        "both do away with what QEMU has gathered; choose one",
    ),
    "renewed while output waits": (
        deployment("full", colo=COLO.replace("= 100", "= 100\nmemory_limit_mb = 999\nrenew = true", 1)),
        "services.pbx.colo.renew: is true, and output waits for checkpoints: until the record says that nobody stands "
        'by it would wait; use policy.relief = "automatic", which is shorter',
    ),
    "a carrier nowhere": (
        deployment("full", colo=COLO.replace("= 100", '= 100\ncarrier_directory = "run"', 1)),
        'services.pbx.colo.carrier_directory: "run" is not an absolute path; give the directory\'s whole path',
    ),
    "a carrier too far down": (
        deployment("full", colo=COLO.replace("= 100", f'= 100\ncarrier_directory = "/{"d" * 90}"', 1)),
        f"services.pbx.colo.carrier_directory: \"/{'d' * 55}... is too long for a socket's path; "
        "a socket's path has at most 107 bytes",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_line_names_the_key_the_problem_and_the_remedy(name: str) -> None:
    text, expected = CASES[name]
    with pytest.raises(DeploymentError) as caught:
        parse(text, "test.toml")
    assert expected in caught.value.diagnostics().splitlines()
