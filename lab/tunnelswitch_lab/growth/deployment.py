"""The deployment file of a lab with many services between one pair of sites, and the bridges that it speaks of.

Services that move together are a group, with a bridge of its own; they share the group's two tunnels, or, to compare,
have two each. Nothing is sent over those: beside each other on one bridge, frames would go round through them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import procs
from tunnelswitch_lab.deployment import FENCE_AFTER_SECONDS, site_table, table
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.options import LabOptions

SERVICES_PER_GROUP = 25
_BRIDGES_SECONDS = 60.0


@dataclass(frozen=True)
class Shape:
    """So many services, in groups; `shared`: a group has one pair of tunnels, not one for each service."""

    services: int
    shared: bool = True

    @property
    def groups(self) -> int:
        return -(-self.services // SERVICES_PER_GROUP)

    def members(self, group: int) -> range:
        """The numbers of its services."""
        first = group * SERVICES_PER_GROUP
        return range(first, min(self.services, first + SERVICES_PER_GROUP))

    def bridges(self) -> list[str]:
        return [_bridge(group) for group in range(self.groups)]

    def write(self, layout: Layout, options: LabOptions) -> Path:
        """See Testbed.up."""
        layout.deployment_file.write_text(self.render(layout, options))
        return layout.deployment_file

    def render(self, layout: Layout, options: LabOptions) -> str:
        """The file's text."""
        sites = [site.nats_url for site in layout.sites]
        tables = [table("cluster", name=layout.name, nats_urls=sites, keys=str(layout.keys))]
        tables += [site_table(site, self.bridges()) for site in layout.sites]
        for group in range(self.groups):
            tables.append(
                table(
                    f"groups.g{group}",
                    preferred=names.SERVERS[0],
                    standby=names.SERVERS[1],
                    gateways=[names.GATEWAY],
                    voters=list(names.SITES),
                    services=[f"s{number}" for number in self.members(group)],
                )
            )
            tables += [self._service(group, number) for number in self.members(group)]
        window_seconds = options.interval_seconds * options.multiplier
        tables.append(
            table(
                "detection",
                interval_seconds=options.interval_seconds,
                multiplier=options.multiplier,
                fence_after_seconds=max(FENCE_AFTER_SECONDS, 2 * window_seconds),
            )
        )
        return "\n".join(tables)

    def _service(self, group: int, number: int) -> str:
        pair = group if self.shared else number
        name = f"services.s{number}"
        never = ["/bin/false"]  # its driver is a stand-in: growth.copies
        return table(
            name,
            driver="exec",
            bridge=_bridge(group),
            t2_key=10 + 2 * pair,
            t3_key=11 + 2 * pair,
            address=f"192.168.{number // 250}.{number % 250 + 1}",
        ) + table(f"{name}.exec", promote=never, fence=never, status=never)


def _bridge(group: int) -> str:
    return f"br-g{group}"


async def add_bridges(layout: Layout, shape: Shape) -> None:
    """At all sites, which must be up. Raises RuntimeError or TimeoutError."""
    commands: list[str] = []
    for bridge in shape.bridges():
        commands += ["--", "add-br", bridge, "--", "set", "Bridge", bridge, "datapath_type=netdev"]
    for site in layout.sites:
        head = ["ovs-vsctl", f"--db={site.ovsdb}", f"--timeout={_BRIDGES_SECONDS:.0f}"]
        await procs.check_output([*head, *commands[1:]], _BRIDGES_SECONDS + 1)
