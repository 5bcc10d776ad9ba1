"""The page about the deployment file names every key there is."""

from __future__ import annotations

import re

import msgspec
from texts import ROOT

from tunnelswitch import config
from tunnelswitch.config import Deployment


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
