"""What a lab consists of, as one JSON-ready dictionary, for people and for tools that probe it."""

from __future__ import annotations

from typing import Any

from tunnelswitch.pki.identities import OPERATOR, OPERATOR_STORE, VIEWER
from tunnelswitch.pki.issue import ACCOUNTS, CA
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.layout import Site
from tunnelswitch_lab.state import State


def describe(state: State) -> dict[str, Any]:
    """Every namespace, address, process, socket and URL of a lab. `alive` is as of now."""
    layout = state.layout
    virtual = state.options.workload == "vm"
    return {
        "name": layout.name,
        "ready": state.ready,
        "created_at": state.created_at,
        "directory": str(layout.directory),
        "deployment_file": str(layout.deployment_file),
        "detection": {
            "interval_seconds": state.options.interval_seconds,
            "multiplier": state.options.multiplier,
            "realtime_priority": state.options.realtime_priority,
        },
        "namespaces": {name.removeprefix(layout.prefix): name for name in layout.namespaces},
        "wan": {"namespace": layout.wan_namespace, "bridge": names.WAN_BRIDGE},
        "sites": {site.name: _site(site) for site in layout.sites},
        "nats": {
            "urls": [site.nats_url for site in layout.sites],
            "accounts": str(layout.keys / ACCOUNTS),
            "ca": str(layout.keys / CA) if state.options.tls else None,
            "keys": {identity.name: str(identity.seed(layout.keys)) for identity in (VIEWER, OPERATOR, OPERATOR_STORE)},
        },
        "client": {
            "namespace": layout.client_namespace,
            "device": "eth0",
            "address": names.CLIENT_ADDRESS,
            "capture": {"namespace": layout.gateway.namespace, "device": names.CLIENT_PORT},
        },
        "service": {
            "address": names.SERVICE_ADDRESS,
            "mac": names.SERVICE_MAC,
            "rtp": f"{names.SERVICE_ADDRESS}:{names.RTP_PORT}",
            "probe": f"{names.SERVICE_ADDRESS}:{names.PROBE_PORT}",
            "workload": state.options.workload,
            "qmp_sockets": {s.name: str(layout.qmp_socket(s.name)) for s in layout.servers} if virtual else {},
            "state_directories": {s.name: str(layout.service_state_directory(s.name)) for s in layout.servers},
        },
        "processes": [
            {
                "name": proc.name,
                "site": proc.site,
                "namespace": proc.namespace,
                "pid": proc.pid,
                "start_ticks": proc.start_ticks,
                "alive": proc.alive,
                "log": proc.log,
                "command": list(proc.command),
            }
            for proc in state.procs
        ],
    }


def _site(site: Site) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "kind": "server" if site.is_server else "gateway",
        "namespace": site.namespace,
        "underlay_address": site.underlay_address,
        "ovsdb": site.ovsdb,
        "switch_control": str(site.switch_control),
        "bridges": ["br-phy", "br-svc", *(["br-t1"] if site.is_server else [])],
        "nats_server": site.name,
        "nats_url": site.nats_url,
        "nats_monitor_url": f"http://{site.underlay_address}:{names.NATS_MONITOR_PORT}",
        "metrics_urls": {"agent": f"http://{site.agent_metrics}/metrics"},
        "wan_port": site.wan_port,
    }
    if site.is_server:
        entry["service_namespace"] = site.service_namespace
        entry["replication_address"] = f"{site.replication_address}:{names.REPLICATION_PORT}"
    else:
        entry["metrics_urls"]["switcher"] = f"http://{site.switcher_metrics}/metrics"
    return entry
