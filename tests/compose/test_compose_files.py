"""The container files without an engine: least privilege, nothing missing, and agreement with each other."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunnelswitch.config import Deployment, load

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIGURATION = CHECKOUT / "deploy" / "compose" / "deployment.toml"
DOCKERFILE = CHECKOUT / "deploy" / "Dockerfile"
SITES = ("primary", "secondary", "gateway")
SWITCHES = tuple(f"{site}-switch" for site in SITES)
# Everything that any container may have beyond nothing at all.
CAPABILITIES = {**{name: {"NET_ADMIN", "NET_RAW"} for name in SWITCHES}, "gateway-agent": {"NET_RAW"}}

COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

every_service = pytest.mark.parametrize("name", SERVICES)


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    return load(CONFIGURATION)


@every_service
def test_a_container_has_only_the_capabilities_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert set(service.get("cap_add", ())) == CAPABILITIES.get(name, set())
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service.get("devices", []) == (["/dev/net/tun"] if name in SWITCHES else [])


@every_service
def test_a_container_shares_nothing_with_the_machine(name: str) -> None:
    service = SERVICES[name]
    for namespace in ("network_mode", "pid", "ipc", "uts", "userns_mode", "cgroup"):
        shared = service.get(namespace, "none")
        assert shared == "none" or shared.startswith("service:"), namespace
    assert service["read_only"] is True
    for source, target, mode in _mounts(service):
        if source.startswith("."):
            assert mode == "ro", f"{source} on {target} can be written"
        assert not source.startswith(("/", "~")), f"{source} is a path of the machine"


@every_service
def test_a_container_has_limits(name: str) -> None:
    service = SERVICES[name]
    assert {"mem_limit", "pids_limit", "restart"} <= set(service)
    assert service["logging"]["options"]["max-size"]
    for mount in service.get("tmpfs", ()):
        assert "size=" in mount


@every_service
def test_what_is_mounted_is_in_the_checkout(name: str) -> None:
    for source, target, _ in _mounts(SERVICES[name]):
        if source.startswith("."):
            assert (CHECKOUT / source).exists(), f"{source}, to be mounted on {target}"
        else:
            assert source in COMPOSE["volumes"]


@every_service
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert str(port).startswith("127.0.0.1:")


@every_service
def test_images_are_pinned_by_tag(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].partition(":")
    assert tag
    assert not tag.startswith("latest")


@every_service
def test_root_is_only_who_needs_it(name: str) -> None:
    service = SERVICES[name]
    ours = service.get("build", {}).get("target") == "tunnelswitch"
    needs = bool(service.get("cap_add")) or name == "keys"  # it owns the keys' volumes
    assert ("user" in service) == (ours and needs), "the image's user is not root"


def test_whatever_answers_is_asked_for_its_health() -> None:
    quiet = {*SITES, "primary-service", "secondary-service", "client", "init", "keys", "operator"}
    assert {name for name, service in SERVICES.items() if "healthcheck" not in service} == quiet


def test_the_base_image_is_pinned_and_the_agents_are_not_root() -> None:
    lines = DOCKERFILE.read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert set(bases) == {"python:3.11-slim-bookworm"}
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]


def test_the_engine_is_given_what_the_dockerfile_copies() -> None:
    given = [line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    sources = [source for sources in copied for source in sources.split()]
    assert sources
    for source in sources:
        assert (CHECKOUT / source).exists(), source
        assert any(source == path or fnmatch(source, f"{path}/*") for path in given), f"{source} is ignored"


def test_the_members_of_a_site_live_in_its_namespaces() -> None:
    for name, service in SERVICES.items():
        site, _, part = name.partition("-")
        if part and site in SITES:
            assert service["network_mode"] == service["pid"] == f"service:{site}"


def test_addresses_agree(deployment: Deployment) -> None:
    for name, site in deployment.sites.items():
        wan = SERVICES[name]["networks"]["wan"]["ipv4_address"]
        assert str(site.underlay_address) == wan
        assert SERVICES[f"{name}-nats"]["environment"] == {"SITE": site.nats_server, "ADDRESS": wan}
        assert wan.endswith(f".{SERVICES[f'{name}-switch']['environment']['SITE_NUMBER']}")
        assert SERVICES[f"{name}-agent"]["healthcheck"]["test"][-1].startswith(f"{wan}:")
    bus = (CHECKOUT / "deploy" / "compose" / "nats.conf").read_text()
    assert 'sync_interval: "always"' in bus
    routed = set(re.findall(r"nats-route://([\d.]+):", bus))
    assert routed == {str(site.underlay_address) for site in deployment.sites.values()}


def test_prometheus_scrapes_every_process() -> None:
    described = tomllib.loads(CONFIGURATION.read_text())
    sites = described["sites"].values()
    endpoints = {site[key] for site in sites for key in ("agent_metrics", "switcher_metrics") if key in site}
    jobs = yaml.safe_load((CHECKOUT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    scraped = [static for job in jobs for static in job["static_configs"]]
    assert {target for static in scraped for target in static["targets"]} >= endpoints
    assert {static["labels"]["cluster"] for static in scraped} == {described["cluster"]["name"]}


def test_grafana_finds_what_it_is_provisioned_with() -> None:
    mounts = {target: source for source, target, _ in _mounts(SERVICES["grafana"])}
    provisioning = CHECKOUT / mounts["/etc/grafana/provisioning"]
    for file in (provisioning / "dashboards").glob("*.yml"):
        for provider in yaml.safe_load(file.read_text())["providers"]:
            assert list((CHECKOUT / mounts[provider["options"]["path"]]).glob("*.json"))
    for file in (provisioning / "datasources").glob("*.yml"):
        for source in yaml.safe_load(file.read_text())["datasources"]:
            assert source["url"] == "http://prometheus:9090"


def test_nobody_gets_keys_that_are_not_his() -> None:
    for name, service in SERVICES.items():
        folders = {target.rpartition("/")[2] for _, target, _ in _mounts(service) if "/tunnelswitch/pki/" in target}
        site, _, part = name.partition("-")
        expected = {
            "agent": {site},
            "switcher": {site},
            "service": {"viewer"},  # asks which site is active
        }.get(part, {"init": {"operator"}, "operator": {"operator", "viewer"}}.get(name, set()))
        assert folders == expected, name
        for source, target, mode in _mounts(service):
            if source.endswith("-keys") and name != "keys":
                assert (source, mode) == (f"{target.rpartition('/')[2]}-keys", "ro")
    holders = {"keys"}
    assert {name for name, service in SERVICES.items() if "authority" in {m[0] for m in _mounts(service)}} == holders


def test_nothing_listens_everywhere() -> None:
    bus = (CHECKOUT / "deploy" / "compose" / "nats.conf").read_text()
    assert bus.count("host: $ADDRESS") == 2
    assert 'include "accounts/accounts.conf"' in bus
    for path in (*CHECKOUT.glob("deploy/**/*.conf"), *CHECKOUT.glob("deploy/**/*.toml")):
        assert "0.0.0.0" not in path.read_text(), path


def _mounts(service: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(source, target, mode) of each volume of a service."""
    parts = [volume.split(":") for volume in service.get("volumes", ())]
    return [(part[0], part[1], part[2] if len(part) > 2 else "rw") for part in parts]
