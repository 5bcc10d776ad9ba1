"""The deployment file of a lab: the one TOML file that all its agents read.

It writes what the lab's layout and the user's options say; docs/configuration.md explains the keys.
"""

from __future__ import annotations

import json
from pathlib import Path

from tunnelswitch.config.checks_services import UNPROTECTING_SECONDS
from tunnelswitch.pki.issue import CA
from tunnelswitch_lab import layout as names
from tunnelswitch_lab import sip_service
from tunnelswitch_lab.guest.machine import MUTE
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.options import LabOptions

SERVICE, GROUP = "pbx", "voip"
HOOKS = Path(__file__).parent / "workload" / "hooks"
HOOK_TIMEOUT_SECONDS = 2.0
# An active without a majority closes itself after this; slow detection needs more, for no window may exceed it.
FENCE_AFTER_SECONDS = 1.0
# An emulated Xen holds its guest longer than a client is usually without an answer.
UNANSWERED_SECONDS = {"process": 0.5, "sip": 0.5, "vm": 0.5, "xen": 15.0}


def write(layout: Layout, options: LabOptions) -> Path:
    """Write the deployment file into the lab's run directory and return its path."""
    temporary = layout.deployment_file.with_suffix(".new")
    temporary.write_text(render(layout, options))
    return temporary.replace(layout.deployment_file)


def render(layout: Layout, options: LabOptions) -> str:
    """The deployment file's text."""
    window_seconds = options.interval_seconds * options.multiplier
    tables = [
        table("cluster", name=layout.name, nats_urls=[site.nats_url for site in layout.sites], keys=str(layout.keys)),
        *([table("cluster.tls", ca=str(layout.keys / CA))] if options.tls else []),
        *(site_table(site, [options.bridge]) for site in layout.sites),
        table(
            f"groups.{GROUP}",
            preferred=names.SERVERS[0],
            standby=names.SERVERS[1],
            gateways=[names.GATEWAY],
            voters=list(names.SITES),
            services=[SERVICE],
        ),
        table(f"groups.{GROUP}.policy", automatic=True, hysteresis_seconds=5.0, **_failback(options)),
        *_service(layout, options),
        table(
            "detection",
            interval_seconds=options.interval_seconds,
            multiplier=options.multiplier,
            floor_seconds=0.0,
            fence_after_seconds=min(3600.0, max(FENCE_AFTER_SECONDS, 2 * window_seconds)),
            unanswered_seconds=UNANSWERED_SECONDS[options.workload] + _held_seconds(options),
        ),
        table(
            "runtime",
            slice_seconds=options.slice_seconds,
            realtime_priority=options.realtime_priority,
            lock_memory=False,
        ),
    ]
    return "\n".join(tables)


def _failback(options: LabOptions) -> dict[str, object]:
    if options.failback_after_seconds is None:
        return {"failback": "manual"}
    return {"failback": "automatic", "failback_after_seconds": options.failback_after_seconds}


def site_table(site: Site, bridges: list[str]) -> str:
    """`[sites.NAME]`, with the bridges on which client tunnels end there."""
    keys: dict[str, object] = {
        "kind": "server" if site.is_server else "gateway",
        "underlay_address": site.underlay_address,
        "ovsdb": site.ovsdb,
        "bridges": bridges,
        "probe_bridge": "br-probe",
        "nats_server": site.name,
        "nats_url": site.nats_url,
        "agent_metrics": site.agent_metrics,
    }
    if not site.is_server:
        keys |= {"switcher_metrics": site.switcher_metrics, "client_port": names.CLIENT_PORT}
    return table(f"sites.{site.name}", **keys)


def _service(layout: Layout, options: LabOptions) -> list[str]:
    makers = {"vm": ("colo", _colo), "xen": ("xen", _xen), "process": ("exec", _exec), "sip": ("exec", _exec)}
    driver, tables_of = makers[options.workload]
    tables = tables_of(layout, options)
    return [
        table(
            f"services.{SERVICE}",
            driver=driver,
            bridge=options.bridge,
            t2_key=names.T2_KEY,
            t3_key=names.T3_KEY,
            address=names.SERVICE_ADDRESS,
            buffering=options.buffering,
        ),
        *([] if options.buffering == "none" else [_output(options)]),
        *tables,
    ]


def _held_seconds(options: LabOptions) -> float:
    """How long an answer may wait for its checkpoint, also one that never comes."""
    return 0.0 if options.buffering == "none" else options.checkpoint_interval_ms / 1000 + UNPROTECTING_SECONDS


def _output(options: LabOptions) -> str:
    ports = [str(names.RTP_PORT)] if options.buffering == "realtime" else []
    return table(
        f"services.{SERVICE}.output",
        machine_device=names.TAP,
        bridge_device=names.HOLD,
        realtime_udp_ports=ports,
    )


def _exec(layout: Layout, options: LabOptions) -> list[str]:
    promote = sip_service.HERE if options.workload == "sip" else HOOKS
    directory = str(layout.service_directory / "{site}")
    return [
        table(
            f"services.{SERVICE}.exec",
            promote=[str(promote / "promote"), directory],
            fence=[str(HOOKS / "fence"), directory],
            status=[str(HOOKS / "status"), directory],
            health=[],
            checkpoint=[str(HOOKS / "checkpoint"), directory],
            timeout_seconds=HOOK_TIMEOUT_SECONDS,
            notify_socket=str(layout.notify_socket("{site}")),
        ),
    ]


def _colo(layout: Layout, options: LabOptions) -> list[str]:
    service = f"services.{SERVICE}.colo"
    return [
        table(
            service,
            qmp_socket=str(layout.qmp_socket("{site}")),
            checkpoint_interval_ms=round(options.checkpoint_interval_ms),
            mute_object=MUTE,
            quickack=True,
            carrier_directory=str(layout.directory) if options.compress else "",
        ),
        *(
            table(
                f"{service}.sites.{server.name}",
                migration_address=f"{server.migration_address}:{names.MIGRATION_PORT}",
                device="br-t1",
            )
            for server in layout.servers
        ),
    ]


def _xen(layout: Layout, options: LabOptions) -> list[str]:
    service = f"services.{SERVICE}.xen"
    return [
        table(
            service,
            keeper_socket=str(layout.keeper_socket("{site}")),
            checkpoint_interval_ms=round(options.checkpoint_interval_ms),
            stall_seconds=15.0,  # on an emulated processor everything takes long
            silence_seconds=20.0,
            timeout_seconds=20.0,
        ),
        *(
            table(
                f"{service}.sites.{server.name}", migration_address=f"{server.migration_address}:{names.MIGRATION_PORT}"
            )
            for server in layout.servers
        ),
    ]


def table(header: str, **keys: object) -> str:
    """A TOML table as text."""
    # Strings, numbers, booleans and arrays are written alike in JSON and TOML.
    return "\n".join([f"[{header}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items()), ""])
