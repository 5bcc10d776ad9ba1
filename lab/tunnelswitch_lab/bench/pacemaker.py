"""Pacemaker on Corosync: three nodes vote, the service's address is a resource, and so is each copy's health.

The gateway's node votes only. Each node has mount, PID and network namespaces of its own (`files/cluster-node`). The
token's timeout is three intervals, as everybody's detection here, and the copies are asked once an interval. The
transport is plain UDP: over knet (libknet 1.25) the nodes that are left lose each other, too, 0.8 s after a node has
died, and have no quorum for a second. There is no power switch to fence with, so fencing is off: Pacemaker then trusts
the quorum alone.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.agents import check_alive
from tunnelswitch_lab.bench import flat
from tunnelswitch_lab.bench.ours import MULTIPLIER
from tunnelswitch_lab.bench.pair import HEALTH_PORT
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.procs import Proc
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.testbed import Testbed

_NODE = Path(__file__).parent / "files" / "cluster-node"
_NOTE = "run/tunnelswitch-copy"  # what the resource agent `copy` leaves, inside the node's own /run
_READY_SECONDS = 60.0
_BANNED = "-INFINITY"


def corosync_configuration(layout: Layout, interval_ms: float) -> str:
    """corosync.conf(5), the same for every node."""
    nodes = "".join(
        f"    node {{\n        name: {site.name}\n        nodeid: {site.number}\n"
        f"        ring0_addr: {flat.own_address(site)}\n    }}\n"
        for site in layout.sites
    )
    return f"""totem {{
    version: 2
    cluster_name: {layout.name}
    transport: udpu
    crypto_cipher: none
    crypto_hash: none
    token: {interval_ms * MULTIPLIER:.0f}
    token_coefficient: 0
}}
quorum {{
    provider: corosync_votequorum
}}
nodelist {{
{nodes}}}
logging {{
    to_stderr: yes
    to_logfile: no
    to_syslog: no
}}
"""


def cib(interval_ms: float) -> str:
    """The cluster information base that every node begins with (pacemaker-3.9.rng)."""
    options = {
        "stonith-enabled": "false",
        "no-quorum-policy": "stop",
        "dc-deadtime": "1s",  # how long a starting node waits for others before it elects a leader
        "cluster-recheck-interval": "1min",
    }
    properties = "".join(f'<nvpair id="option-{key}" name="{key}" value="{value}"/>' for key, value in options.items())
    check = f'<op id="copy-monitor" name="monitor" interval="{interval_ms:.0f}ms" timeout="1s"/>'
    return f"""<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" admin_epoch="0" epoch="1" num_updates="0">
<configuration>
<crm_config><cluster_property_set id="options">{properties}</cluster_property_set></crm_config>
<nodes/>
<resources>
<clone id="copies">
{_attributes("copies-meta", {"interleave": "true"}, tag="meta_attributes")}
<primitive id="copy" class="ocf" provider="tunnelswitch" type="copy">
{_attributes("copy-options", {"port": HEALTH_PORT})}
<operations>{check}</operations>
</primitive>
</clone>
<primitive id="address" class="ocf" provider="heartbeat" type="IPaddr2">
{_attributes("address-options", {"ip": names.SERVICE_ADDRESS, "cidr_netmask": flat.PREFIX_LENGTH, "nic": "eth0"})}
<operations><op id="address-monitor" name="monitor" interval="10s" timeout="20s"/></operations>
</primitive>
</resources>
<constraints>
<rsc_colocation id="address-with-copy" rsc="address" with-rsc="copies" score="INFINITY"/>
<rsc_order id="copy-before-address" first="copies" then="address"/>
<rsc_location id="primary-first" rsc="address" node="{names.SERVERS[0]}" score="10"/>
<rsc_location id="no-copy-at-gateway" rsc="copies" node="{names.GATEWAY}" score="{_BANNED}"/>
<rsc_location id="no-address-at-gateway" rsc="address" node="{names.GATEWAY}" score="{_BANNED}"/>
</constraints>
<rsc_defaults>
{_attributes("defaults", {"resource-stickiness": 100, "migration-threshold": 1}, tag="meta_attributes")}
</rsc_defaults>
</configuration>
<status/>
</cib>
"""


def _attributes(identity: str, values: dict[str, object], tag: str = "instance_attributes") -> str:
    pairs = "".join(f'<nvpair id="{identity}-{key}" name="{key}" value="{value}"/>' for key, value in values.items())
    return f'<{tag} id="{identity}">{pairs}</{tag}>'


@dataclass
class Pacemaker:
    """A token timeout of three times `interval_ms`, and a health check every `interval_ms`."""

    interval_ms: float
    name: str = "pacemaker"
    faults: tuple[str, ...] = ("host-loss", "service-crash")
    programs: tuple[str, ...] = ("corosync", "pacemakerd", "/usr/lib/ocf/resource.d/heartbeat/IPaddr2")
    record: type[Recording] = Recording
    does_not: str = (
        "run on two sites alone without risk; fence without a power switch, which the lab has none of; "
        "keep state; reach beyond one layer 2"
    )

    async def start(self, bed: Testbed) -> None:
        layout, nodes = bed.layout, {}
        await flat.start(bed)
        await flat.attach(layout.gateway, flat.own_address(layout.gateway))
        for site in layout.sites:
            nodes[site.name] = self._spawn(bed, site)
        await netns.wait_for(lambda: _settled(layout, nodes), "Pacemaker's resources", _READY_SECONDS, 0.2)

    def _spawn(self, bed: Testbed, site: Site) -> Proc:
        place = bed.layout.directory / f"cluster-{site.name}"
        place.mkdir(exist_ok=True)
        (place / "corosync.conf").write_text(corosync_configuration(bed.layout, self.interval_ms), encoding="utf-8")
        (place / "cib.xml").write_text(cib(self.interval_ms), encoding="utf-8")
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        namespace = site.service_namespace if site.is_server else site.namespace
        return bed.spawn(namespace, [*alone, str(_NODE), str(place)], name=f"node-{site.name}")

    async def wait_ready(self, recording: Recording) -> None:
        """Both copies are watched and the call is answered."""

    async def stop(self, bed: Testbed) -> None:
        """Kill the nodes: Pacemaker's own way out, resource by resource, takes seconds. Then as every lab has it."""
        for site in bed.layout.sites:
            with contextlib.suppress(LabError):  # it was not started
                bed.find(f"node-{site.name}").signal(9)
        await bed.stop("node-")
        await flat.restore(bed)


async def _settled(layout: Layout, nodes: dict[str, Proc]) -> bool:
    """Is the address at the primary, and are both copies watched?"""
    for proc in nodes.values():
        check_alive(proc)
    notes = [Path(f"/proc/{nodes[server.name].pid}/root/{_NOTE}") for server in layout.servers]
    watched = map(Path.exists, notes)
    return all(watched) and await flat.has_service_address(layout.servers[0])
