"""The pages for people: every link leads to a file, nothing was left to be filled in, and what they name is there."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tunnelswitch.config import parse

ROOT = Path(__file__).parents[2]
NAMES = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "bus_schemas/README.md")
PAGES = sorted([*(ROOT / name for name in NAMES), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(<?([^)<>\s]+)>?(?: \"[^\"]*\")?\)")
PLACEHOLDER = re.compile(r"@@[^@\s]+@@|\b(?:FIGURES|TODO|FIXME|TBD)\b")


def prose(page: Path) -> str:
    """A page without its code."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"(?ms)^ {0,3}```.*?^ {0,3}```|`[^`\n]*`", "", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_and_nothing_is_left_to_be_filled_in(page: Path) -> None:
    text = prose(page)
    targets = [target for target in LINK.findall(text) if not re.match(r"[a-z]+:", target)]
    broken = [target for target in targets if not (page.parent / target.partition("#")[0]).exists()]
    assert broken == []
    assert PLACEHOLDER.findall(page.read_text(encoding="utf-8")) == []


def test_the_units_and_the_page_about_them_know_each_other() -> None:
    section = (ROOT / "docs/configuration.md").read_text(encoding="utf-8").partition("\n## Under systemd\n")[2]
    units = sorted((ROOT / "deploy/systemd").iterdir())
    assert len(units) == 6
    for unit in units:
        of = "@SERVICE" if unit.name.startswith(("tunnelswitch-standby", "tunnelswitch-xen-keeper")) else "@SITE"
        assert f"`{unit.name.replace('@', of)}`" in section
        assert 'docs/configuration.md, "Under systemd"' in unit.read_text(encoding="utf-8")


def test_the_deployment_that_is_set_up_step_by_step_is_one() -> None:
    """The file that docs/deploying.md prints is accepted, and its commands make what it names."""
    page = (ROOT / "docs/deploying.md").read_text(encoding="utf-8")
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?m)(?:^(?: {4}.*)?\n)+", page)]
    (text,) = (block for block in blocks if "\n[cluster]\n" in block)
    commands = "".join(block for block in blocks if block != text)
    deployment = parse(text, "docs/deploying.md")
    (group,) = deployment.core_groups()
    assert (group.servers, group.gateways) == (("primary", "secondary"), ("gateway",))
    assert group.voters == ("primary", "secondary", "gateway")
    for site in deployment.sites.values():
        assert all(f"add-br {bridge} " in commands for bridge in site.bridges)
        assert f"add-br {site.probe_bridge}" not in page
        assert f"| {site.underlay_address} |" in page
        assert not site.client_port or f"add-port br-svc {site.client_port}\n" in commands
    machine = deployment.services["pbx"].colo
    assert machine is not None
    for name, end in machine.sites.items():
        t1_address = end.migration_address.partition(":")[0]
        assert f"| `{name}` | {deployment.sites[name].underlay_address} | {t1_address} |" in page
        assert f"add-br {end.device} " in commands
    (t1_key,) = set(re.findall(r"options:key=(\d+)", commands))
    assert int(t1_key) not in (deployment.services["pbx"].t2_key, deployment.services["pbx"].t3_key)


def test_the_index_has_a_line_for_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    folders = {f"{path.name}/" for path in (ROOT / "docs").iterdir() if path.is_dir()}
    listed = re.findall(r"(?m)^\| \[[^\]]+\]\(([\w./-]+)\) \|", index)
    assert len(listed) == len(set(listed))
    assert pages | folders <= {target.removesuffix("README.md") for target in listed}
