"""What must hold between the values of a deployment, site by site and group by group. `checks_services` does services.

Every check notes its problem and goes on, so that one run shows everything. Nothing here touches the machine: that a
bridge or a server really is there is for the agents to find out.
"""

from __future__ import annotations

from tunnelswitch.config import values
from tunnelswitch.config.checks_services import check_services
from tunnelswitch.config.model import Deployment, Detection, Group, Site, SiteKind
from tunnelswitch.config.problems import Problems, join_key, shown, suggestion

MAX_GATEWAYS = 100
MIN_VOTERS = 3
RESERVED_SITES = ("operator", "viewer")


def check(deployment: Deployment, problems: Problems) -> None:
    """Note everything that makes a well-typed deployment unusable."""
    _check_cluster(deployment, problems)
    for name, site in deployment.sites.items():
        _check_site(name, site, problems)
    _check_distinct(deployment, problems)
    if not deployment.groups:
        problems.add("groups", "is empty", "add a table [groups.NAME]")
    for name, group in deployment.groups.items():
        _check_group(name, group, deployment, problems)
    check_services(deployment, problems)
    _check_detection(deployment.detection, problems)


def _check_cluster(deployment: Deployment, problems: Problems) -> None:
    cluster = deployment.cluster
    if not values.is_name(cluster.name):
        problems.add("cluster.name", f"{shown(cluster.name)} is not a name", values.NAME_RULE)
    if not cluster.nats_urls:
        problems.add("cluster.nats_urls", "is empty", "name at least one NATS server")
    for url in cluster.nats_urls:
        _check_nats("cluster.nats_urls", url, problems)
    if cluster.keys and cluster.credentials:
        remedy = "remove one: keys is a directory with an nkey for each identity, credentials one file for all"
        problems.add("cluster.keys", "is given, and cluster.credentials too", remedy)
    if cluster.tls is not None and not cluster.tls.ca:
        problems.add("cluster.tls.ca", "is empty", "give the path of a PEM file")


def _check_nats(key: str, url: str, problems: Problems) -> None:
    problem = values.nats_problem(url)
    if not problem:
        return
    if "password" in problem:
        problems.add(key, f"a URL {problem}", "keep secrets in the file that cluster.credentials names")
    else:
        problems.add(key, f"{shown(url)} {problem}", "write nats://HOST:PORT or tls://HOST:PORT")


def _check_site(name: str, site: Site, problems: Problems) -> None:
    key = join_key("sites", name)
    if not values.is_name(name):
        problems.add(key, "is not a name", values.NAME_RULE)
    if name in RESERVED_SITES:
        problems.add(key, "is not a site's name", "give it another one: people's keys are kept under this one")
    if not values.is_usable_endpoint(site.underlay_address):
        remedy = "give the IP address of this site that the other sites reach"
        problems.add(f"{key}.underlay_address", f"{shown(site.underlay_address)} is not such an address", remedy)
    _check_ovsdb(key, site, problems)
    if site.nats_url:
        _check_nats(f"{key}.nats_url", site.nats_url, problems)
    if not values.is_server_name(site.nats_server):
        remedy = "give the server_name of the NATS node, of letters, digits and _.-"
        problems.add(f"{key}.nats_server", f"{shown(site.nats_server)} is not a name", remedy)
    for field, bridges in (("bridges", site.bridges), ("probe_bridge", (site.probe_bridge,))):
        for bridge in bridges:
            if not values.is_device(bridge):
                remedy = "use at most 15 characters without blanks, / and :"
                problems.add(f"{key}.{field}", f"{shown(bridge)} is not a bridge's name", remedy)
    if site.probe_bridge in site.bridges:
        problems.add(
            f"{key}.probe_bridge",
            f"{shown(site.probe_bridge)} also stands in bridges",
            "give the probe mesh a bridge of its own: a full mesh that forwards would loop",
        )
    _check_metrics(key, site, problems)
    _check_kind(key, site, problems)


def _check_ovsdb(key: str, site: Site, problems: Problems) -> None:
    problem = values.ovsdb_problem(site.ovsdb)
    if problem:
        remedy = "write unix:/PATH, tcp:HOST:PORT or ssl:HOST:PORT"
        problems.add(f"{key}.ovsdb", f"{shown(site.ovsdb)} {problem}", remedy)
    encrypted = site.ovsdb.startswith("ssl:")
    if encrypted and site.tls is None:
        remedy = f"add the table [{key}.tls] with certificate, private_key and ca"
        problems.add(f"{key}.tls", "is missing, and ovsdb is an ssl: remote", remedy)
    if site.tls is not None:
        if not encrypted:
            problems.add(f"{key}.tls", "is not used: ovsdb is no ssl: remote", "remove it, or use ssl:HOST:PORT")
        for field in ("certificate", "private_key", "ca"):
            if not getattr(site.tls, field):
                problems.add(f"{key}.tls.{field}", "is empty", "give the path of a PEM file")


def _check_metrics(key: str, site: Site, problems: Problems) -> None:
    for field in ("agent_metrics", "switcher_metrics"):
        text: str = getattr(site, field)
        wanted = field == "agent_metrics" or bool(text)
        if wanted and values.split_endpoint(text) is None:
            remedy = "write HOST:PORT or [IPV6]:PORT"
            problems.add(f"{key}.{field}", f"{shown(text)} is not an address to listen on", remedy)


def _check_kind(key: str, site: Site, problems: Problems) -> None:
    gateway = site.kind is SiteKind.GATEWAY
    uses = (("client_port", "watches clients"), ("switcher_metrics", "runs a switcher"))
    for field, what in uses:
        given: str = getattr(site, field)
        if gateway and not given:
            remedy = "name it; see docs/configuration.md"
            problems.add(f"{key}.{field}", f"is missing, and a gateway {what}", remedy)
        elif given and not gateway:
            remedy = 'remove it, or make the site kind = "gateway"'
            problems.add(f"{key}.{field}", f"is given, but only a gateway {what}", remedy)
    if gateway and site.client_port and not values.is_device(site.client_port):
        remedy = "give a network device of at most 15 characters"
        problems.add(f"{key}.client_port", f"{shown(site.client_port)} is not a device's name", remedy)
    if site.kind is not SiteKind.WITNESS and not site.bridges:
        problems.add(f"{key}.bridges", "is missing or empty", "list the bridges on which we may make client tunnels")


def _check_distinct(deployment: Deployment, problems: Problems) -> None:
    """No two sites share an underlay address, and no two processes an address to listen on."""
    underlay: dict[str, str] = {}
    listening: dict[object, str] = {}
    for name, site in deployment.sites.items():
        key = join_key("sites", name)
        first = underlay.setdefault(site.underlay_address, key)
        if first != key:
            problem = f"{shown(site.underlay_address)} is also {first}.underlay_address"
            problems.add(f"{key}.underlay_address", problem, "give every site an address of its own")
        for field in ("agent_metrics", "switcher_metrics"):
            endpoint = values.split_endpoint(getattr(site, field))
            if endpoint is None:
                continue
            scope = name if values.is_local_to_host(endpoint[0]) else ""
            first = listening.setdefault((scope, endpoint), f"{key}.{field}")
            if first != f"{key}.{field}":
                problem = f"{shown(getattr(site, field))} is also {first}"
                problems.add(f"{key}.{field}", problem, "give every process a port of its own")


def _check_group(name: str, group: Group, deployment: Deployment, problems: Problems) -> None:
    key = join_key("groups", name)
    if not values.is_name(name):
        problems.add(key, "is not a name", values.NAME_RULE)

    def check_member(field: str, site: str, kind: SiteKind | None) -> None:
        found = deployment.sites.get(site)
        if found is None:
            remedy = suggestion(site, deployment.sites, "sites")
            problems.add(f"{key}.{field}", f"names no site: {shown(site)}", remedy)
        elif kind is not None and found.kind is not kind:
            others = (other for other, that in deployment.sites.items() if that.kind is kind)
            remedy = f"name a site of kind {kind}: {', '.join(others) or 'there is none'}"
            problems.add(f"{key}.{field}", f"{shown(site)} is a {found.kind}", remedy)

    check_member("preferred", group.preferred, SiteKind.SERVER)
    check_member("standby", group.standby, SiteKind.SERVER)
    for gateway in group.gateways:
        check_member("gateways", gateway, SiteKind.GATEWAY)
    for voter in group.voters:
        check_member("voters", voter, None)
    if group.preferred == group.standby:
        remedy = "name two server sites: a copy on the same site is lost with it"
        problems.add(f"{key}.standby", f"{shown(group.standby)} is also the preferred site", remedy)
    if not 1 <= len(group.gateways) <= MAX_GATEWAYS:
        problems.add(f"{key}.gateways", f"names {len(group.gateways)} sites", f"name 1 to {MAX_GATEWAYS}")
    _check_unique(f"{key}.gateways", group.gateways, problems)
    _check_unique(f"{key}.voters", group.voters, problems)
    for wish in ("failback", "relief"):
        if getattr(group.policy, wish) == "automatic" and not group.policy.automatic:
            problem = 'is "automatic", and policy.automatic is false: nothing moves by itself'
            problems.add(f"{key}.policy.{wish}", problem, 'set it to "manual"')
    for name in group.services if group.policy.relief == "automatic" else ():
        service = deployment.services.get(name)
        if service is not None and service.colo is not None and service.colo.renew:
            problem = (
                f'is "automatic", and services.{name}.colo.renew is true: both do away with what QEMU has gathered'
            )
            problems.add(f"{key}.policy.relief", problem, "choose one")
    if group.policy.automatic and len(group.all_voters) < MIN_VOTERS:
        problems.add(
            f"{key}.voters",
            f"{len(group.all_voters)} voters can never tell a dead site from a cut link",
            f"name at least {MIN_VOTERS}, or set {key}.policy.automatic = false",
        )


def _check_unique(key: str, names: tuple[str, ...], problems: Problems) -> None:
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            problems.add(key, f"names {shown(name)} {names.count(name)} times", "name it once")


def _check_detection(detection: Detection, problems: Problems) -> None:
    if detection.fence_after_seconds < detection.window_seconds:
        problems.add(
            "detection.fence_after_seconds",
            f"{detection.fence_after_seconds} is shorter than the detection window of {detection.window_seconds:g} s",
            "let it be at least interval_seconds x multiplier and floor_seconds",
        )
    ceiling, fence = detection.ceiling_seconds, detection.fence_after_seconds
    if ceiling is not None and ceiling < detection.window_seconds:
        problems.add(
            "detection.ceiling_seconds",
            f"{ceiling:g} is shorter than the detection window of {detection.window_seconds:g} s",
            "let it be at least interval_seconds x multiplier and floor_seconds",
        )
    if ceiling is not None and ceiling > fence:
        problems.add(
            "detection.ceiling_seconds",
            f"{ceiling:g} is longer than fence_after_seconds, {fence:g}",
            "lower it or raise the other: an active would have closed itself before anybody takes over",
        )
