"""Every mistake in a deployment file: one line names the key, the problem and the remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from texts import EXAMPLE, SITE, changed, complaints

from tunnelswitch.config import DeploymentError, load

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
    "a slice too long": (
        changed("slice_seconds = 0.0001", "slice_seconds = 1"),
        "runtime.slice_seconds: is 1; give seconds from 0 to 0.1",
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


def test_everything_is_said_at_once() -> None:
    text = changed("t3_key = 3", "t3_key = 2").replace('standby = "secondary"', 'standby = "x"')
    assert len(complaints(text)) == 2
    text = changed("t3_key = 3", 't3_key = "3"').replace("multiplier = 3", "multiplier = 99")
    assert len(complaints(text)) == 2


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
