"""The deployment file: what it comes to, and what is said of every mistake."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from tunnelswitch import config
from tunnelswitch.adapters.client_packets import ClientPackets
from tunnelswitch.config import Deployment, DeploymentError, load, parse
from tunnelswitch.core.topology import tunnel_ends

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "deploy/example.toml").read_text(encoding="utf-8")
SITE = "[sites.secondary]"


def complaints(text: str) -> list[str]:
    with pytest.raises(DeploymentError) as caught:
        parse(text, "test.toml")
    return caught.value.diagnostics().splitlines()


def changed(old: str, new: str, count: int = 1) -> str:
    assert old in EXAMPLE
    return EXAMPLE.replace(old, new, count)


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
    assert deployment.runtime.realtime_priority == 0


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


CASES = {
    "unknown site": (
        changed('standby = "secondary"', 'standby = "secondry"'),
        'groups.voip.standby: names no site: "secondry"; did you mean secondary? sites: gateway, primary, secondary',
    ),
    "wrong kind": (
        changed('standby = "secondary"', 'standby = "gateway"'),
        'groups.voip.standby: "gateway" is a gateway; name a site of kind server: primary, secondary',
    ),
    "same site twice": (
        changed('standby = "secondary"', 'standby = "primary"'),
        'groups.voip.standby: "primary" is also the preferred site; '
        "name two server sites: a copy on the same site is lost with it",
    ),
    "duplicate key": (
        changed("t3_key = 3", "t3_key = 2"),
        "services.pbx.t3_key: 2 is also services.pbx.t2_key; give every tunnel a GRE key of its own",
    ),
    "duplicate address": (
        changed('underlay_address = "10.9.0.2"', 'underlay_address = "10.9.0.1"'),
        'sites.secondary.underlay_address: "10.9.0.1" is also sites.primary.underlay_address; '
        "give every site an address of its own",
    ),
    "duplicate metrics": (
        changed("10.9.0.3:9102", "10.9.0.3:9101"),
        'sites.gateway.switcher_metrics: "10.9.0.3:9101" is also sites.gateway.agent_metrics; '
        "give every process a port of its own",
    ),
    "not an address": (
        changed('underlay_address = "10.9.0.2"', 'underlay_address = "10.9.0.300"'),
        'sites.secondary.underlay_address: "10.9.0.300" is not such an address; '
        "give the IP address of this site that the other sites reach",
    ),
    "a service by IPv6": (
        changed('address = "192.168.77.10"', 'address = "2001:db8::10"'),
        'services.pbx.address: "2001:db8::10" is not an IPv4 address, and a gateway watches no other packets; '
        "give the address that the clients talk to",
    ),
    "unknown service": (
        changed('services = ["pbx"]', 'services = ["pbx", "pbz"]'),
        'groups.voip.services: names no service: "pbz"; did you mean pbx? services: pbx',
    ),
    "service in no group": (
        EXAMPLE + '\n[services.sip]\ndriver = "exec"\nbridge = "br-svc"\nt2_key = 4\nt3_key = 5\n'
        'address = "192.168.77.11"\n[services.sip.exec]\npromote = ["/p"]\nfence = ["/f"]\nstatus = ["/s"]\n',
        "services.sip: is in no group; add it to services of one [groups.NAME]",
    ),
    "service twice": (
        changed('services = ["pbx"]', 'services = ["pbx", "pbx"]'),
        'groups.voip.services: "pbx" is already in groups.voip.services; let each service be in one group',
    ),
    "unknown driver": (
        changed('driver = "exec"', 'driver = "exek"'),
        'services.pbx.driver: "exek" is not a driver; did you mean exec? drivers: colo, exec, xen',
    ),
    "foreign bridge": (
        changed('bridge = "br-svc"', 'bridge = "br-x"'),
        'services.pbx.bridge: "br-x" is not ours to use at site primary (its bridges: br-svc); '
        "add it to sites.primary.bridges, or name one of those",
    ),
    "probe bridge": (
        changed('probe_bridge = "br-probe"', 'probe_bridge = "br-svc"'),
        'sites.primary.probe_bridge: "br-svc" also stands in bridges; '
        "give the probe mesh a bridge of its own: a full mesh that forwards would loop",
    ),
    "two voters": (
        changed('voters = ["primary", "secondary", "gateway"]', 'voters = ["secondary", "gateway"]'),
        "groups.voip.voters: 2 voters can never tell a dead site from a cut link; "
        "name at least 3, or set groups.voip.policy.automatic = false",
    ),
    "unknown voter": (
        changed('"secondary", "gateway"]  ', '"secondary", "gateway", "moon"]  '),
        'groups.voip.voters: names no site: "moon"; sites: gateway, primary, secondary',
    ),
    "no client port": (
        re.sub(r"(?m)^client_port.*\n", "", EXAMPLE),
        "sites.gateway.client_port: is missing, and a gateway watches clients; name it; see docs/configuration.md",
    ),
    "no switcher": (
        re.sub(r"(?m)^switcher_metrics.*\n", "", EXAMPLE),
        "sites.gateway.switcher_metrics: is missing, and a gateway runs a switcher; name it; see docs/configuration.md",
    ),
    "switcher at a server": (
        changed(SITE, SITE + '\nclient_port = "eth0"'),
        "sites.secondary.client_port: is given, but only a gateway watches clients; "
        'remove it, or make the site kind = "gateway"',
    ),
    "interval": (
        changed("interval_seconds = 0.02", "interval_seconds = 0"),
        "detection.interval_seconds: is 0; give seconds from 0.001 to 60",
    ),
    "not a number": (
        changed("floor_seconds = 0.0", "floor_seconds = nan"),
        "detection.floor_seconds: is NaN; give seconds from 0 to 600",
    ),
    "multiplier": (
        changed("multiplier = 3", "multiplier = 1"),
        "detection.multiplier: is 1; give a whole number from 2 to 50",
    ),
    "fence too soon": (
        changed("fence_after_seconds = 1.0", "fence_after_seconds = 0.05"),
        "detection.fence_after_seconds: 0.05 is shorter than the detection window of 0.06 s; "
        "let it be at least interval_seconds x multiplier and floor_seconds",
    ),
    "ceiling below the window": (
        changed("fence_after_seconds = 1.0", "fence_after_seconds = 1.0\nceiling_seconds = 0.05"),
        "detection.ceiling_seconds: 0.05 is shorter than the detection window of 0.06 s; "
        "let it be at least interval_seconds x multiplier and floor_seconds",
    ),
    "ceiling above the fence": (
        changed("fence_after_seconds = 1.0", "fence_after_seconds = 1.0\nceiling_seconds = 1.5"),
        "detection.ceiling_seconds: 1.5 is longer than fence_after_seconds, 1; "
        "lower it or raise the other: an active would have closed itself before anybody takes over",
    ),
    "no budget": (
        changed("fence_after_seconds = 1.0", "fence_after_seconds = 1.0\nfalse_silences_per_day = 0.0"),
        "detection.false_silences_per_day: is 0.0; give a number from 0.001 to 1000",
    ),
    "ovsdb": (
        changed("unix:/run/openvswitch/secondary/db.sock", "/run/db.sock"),
        'sites.secondary.ovsdb: "/run/db.sock" is not an OVSDB remote; '
        "write unix:/PATH, tcp:HOST:PORT or ssl:HOST:PORT",
    ),
    "ssl without files": (
        changed("unix:/run/openvswitch/secondary/db.sock", "ssl:10.9.0.2:6640"),
        "sites.secondary.tls: is missing, and ovsdb is an ssl: remote; "
        "add the table [sites.secondary.tls] with certificate, private_key and ca",
    ),
    "nats": (
        changed('"nats://10.9.0.1:4222",', '"http://10.9.0.1:4222",'),
        'cluster.nats_urls: "http://10.9.0.1:4222" is not a NATS URL; write nats://HOST:PORT or tls://HOST:PORT',
    ),
    "secret in a URL": (
        changed('"nats://10.9.0.1:4222",', '"nats://me:hush@10.9.0.1:4222",'),
        "cluster.nats_urls: a URL holds a user or password; keep secrets in the file that cluster.credentials names",
    ),
    "two ways in": (
        changed("# keys = ", 'credentials = "/x.creds"\nkeys = '),
        "cluster.keys: is given, and cluster.credentials too; "
        "remove one: keys is a directory with an nkey for each identity, credentials one file for all",
    ),
    "TLS without an authority": (
        changed('# tls = { ca = "/etc/tunnelswitch/pki/ca.crt" }', 'tls = { ca = "" }'),
        "cluster.tls.ca: is empty; give the path of a PEM file",
    ),
    "a person as a site": (
        changed("[sites.gateway]", "[sites.viewer]").replace('"gateway"]', '"viewer"]'),
        "sites.viewer: is not a site's name; give it another one: people's keys are kept under this one",
    ),
    "empty command": (
        changed('promote = ["/usr/local/lib/pbx/promote"]', "promote = []"),
        "services.pbx.exec.promote: is empty; give the command as a list: program, then arguments",
    ),
    "relative command": (
        changed("/usr/local/lib/pbx/fence", "fence"),
        'services.pbx.exec.fence: "fence" is not an absolute path; '
        "name the program by its whole path; no shell and no PATH is used",
    ),
    "command as a string": (
        changed('status = ["/usr/local/lib/pbx/status"]', 'status = "/usr/local/lib/pbx/status"'),
        'services.pbx.exec.status: is "/usr/local/lib/pbx/status"; give a list of strings',
    ),
    "relief of a group that does not move": (
        changed('relief = "manual"', 'relief = "automatic"').replace("automatic = true", "automatic = false"),
        'groups.voip.policy.relief: is "automatic", and policy.automatic is false: nothing moves by itself; '
        'set it to "manual"',
    ),
    "failback of a group that does not move": (
        changed('failback = "manual"', 'failback = "automatic"').replace("automatic = true", "automatic = false"),
        'groups.voip.policy.failback: is "automatic", and policy.automatic is false: nothing moves by itself; '
        'set it to "manual"',
    ),
    "unknown key": (
        changed("t2_key = 2", "t2_key = 2\nt2_kee = 2"),
        "services.pbx.t2_kee: is not a key we know; did you mean t2_key? "
        "keys here: address, bridge, buffering, colo, degraded_after_seconds, driver, exec, output, t2_key, t3_key, "
        "xen",
    ),
    "unknown table": (
        changed("[runtime]", "[runtme]"),
        "runtme: is not a key we know; did you mean runtime? "
        "keys here: cluster, detection, groups, runtime, services, sites",
    ),
    "missing key": (
        re.sub(r"(?m)^probe_bridge.*\n", "", EXAMPLE, count=1),
        "sites.primary.probe_bridge: is missing; give a string in quotes",
    ),
    "kind": (
        changed('kind = "gateway"', 'kind = "gatway"'),
        'sites.gateway.kind: is "gatway"; give one of "server", "gateway", "witness"',
    ),
    "key range": (
        changed("t2_key = 2", "t2_key = 4294967296"),
        "services.pbx.t2_key: is 4294967296; give a GRE key from 1 to 4294967295 (RFC 2890)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_line_names_the_key_the_problem_and_the_remedy(name: str) -> None:
    text, expected = CASES[name]
    assert expected in complaints(text)


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
    "delta cache": (
        VM.replace("quickack = true", "delta_cache_mb = 100"),
        "services.pbx.colo.delta_cache_mb: 100 is no power of two; give 64, 128, ..., or 0",
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


@pytest.mark.parametrize("case", VM_CASES)
def test_every_mistake_about_a_virtual_machine(case: str) -> None:
    text, line = VM_CASES[case]
    assert line in complaints(text)


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


@pytest.mark.parametrize("case", XEN_CASES)
def test_every_mistake_about_a_guest_under_xen(case: str) -> None:
    text, line = XEN_CASES[case]
    assert line in complaints(text)


def test_every_driver_needs_its_table() -> None:
    text = EXAMPLE[: EXAMPLE.index("[services.pbx.exec]")] + EXAMPLE[EXAMPLE.index("[detection]") :]
    assert complaints(text) == [
        'services.pbx.exec: is missing, and driver is "exec"; add the table [services.pbx.exec]'
    ]


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


def test_everything_is_said_at_once() -> None:
    text = changed("t3_key = 3", "t3_key = 2").replace('standby = "secondary"', 'standby = "x"')
    assert len(complaints(text)) == 2
    text = changed("t3_key = 3", 't3_key = "3"').replace("multiplier = 3", "multiplier = 99")
    assert len(complaints(text)) == 2


def test_two_hosts_may_both_listen_on_loopback() -> None:
    text = EXAMPLE.replace("10.9.0.1:9101", "127.0.0.1:9101").replace("10.9.0.2:9101", "127.0.0.1:9101")
    parse(text, "test.toml")


def test_a_group_that_only_an_operator_moves_may_have_two_voters() -> None:
    text = changed('voters = ["primary", "secondary", "gateway"]', 'voters = ["secondary", "gateway"]')
    parse(text.replace("automatic = true", "automatic = false"), "test.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[cluster\n", "test.toml: is not TOML: Expected ']' at the end of a table declaration (at line 1, column 9)"),
        ("a = 1\na = 2\n", "test.toml: is not TOML: Cannot overwrite a value (at line 2, column 6)"),
        ("a = " + "[" * 100_000, "test.toml: is nested too deeply"),
        ("a = " + "9" * 10_000, "test.toml: is not TOML"),
        ("cluster = 3", "cluster: is 3; make it a table: [cluster]"),
        ("sites = 3", "sites: is 3; make it tables: [sites.NAME]"),
        ("", "cluster: is missing; add the table [cluster]"),
        ('"a\\nb" = 1', '"a\\nb": is not a key we know'),
    ],
)
def test_not_a_deployment_at_all(text: str, expected: str) -> None:
    assert any(line.startswith(expected) for line in complaints(text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="No such file or directory"):
        load(tmp_path / "none.toml")
    with pytest.raises(DeploymentError, match="Is a directory"):
        load(tmp_path)
    path = tmp_path / "latin.toml"
    path.write_bytes(b"[cluster]\nname = '\xe9'\n")
    with pytest.raises(DeploymentError, match="line 2 is not UTF-8"):
        load(path)
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(DeploymentError, match="is over 1048576 bytes"):
        load(path)


def _tables(cls: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    found = {}
    for field in msgspec.structs.fields(cls):
        for name in (
            "Cluster",
            "Site",
            "Group",
            "Service",
            "Detection",
            "Runtime",
            "ClusterTls",
            "Tls",
            "Policy",
            "Exec",
            "Colo",
            "ColoSite",
            "Output",
            "Xen",
            "XenSite",
        ):
            if re.search(rf"\b{name}\b", str(field.type)):
                found[field.name] = getattr(config, name)
    return found


def _documented_sections() -> dict[str, str]:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    return dict(re.findall(r"(?ms)^## `\[([^\]]+)\]`.*?$(.*?)(?=^## |\Z)", text))


def test_every_key_is_documented() -> None:
    sections = _documented_sections()
    titles = {
        "cluster": config.Cluster,
        "cluster.tls": config.ClusterTls,
        "sites.NAME": config.Site,
        "sites.NAME.tls": config.Tls,
        "groups.NAME": config.Group,
        "groups.NAME.policy": config.Policy,
        "services.NAME": config.Service,
        "services.NAME.exec": config.Exec,
        "services.NAME.output": config.Output,
        "services.NAME.colo": config.Colo,
        "services.NAME.colo.sites.SITE": config.ColoSite,
        "services.NAME.xen": config.Xen,
        "services.NAME.xen.sites.SITE": config.XenSite,
        "detection": config.Detection,
        "runtime": config.Runtime,
    }
    assert set(sections) == set(titles)
    for title, cls in titles.items():
        keys = {field.name for field in msgspec.structs.fields(cls)} - set(_tables(cls))
        assert set(re.findall(r"(?m)^\| `(\w+)` \|", sections[title])) == keys, title
    assert set(_tables(Deployment)) == {title.partition(".")[0] for title in titles}
