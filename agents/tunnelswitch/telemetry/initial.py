"""Series that exist from the start: a rate over one that appears with its first event misses that event.

Only what the process can ever count: a gateway's agent sees the clients' packets, its switcher makes the moves, a
server site's agent drives the copies.
"""

from __future__ import annotations

from importlib.metadata import version

from tunnelswitch.config import Deployment
from tunnelswitch.core.facts import Reason
from tunnelswitch.core.topology import Group
from tunnelswitch.telemetry.families import BAD_MESSAGE_KINDS, DRIVER_PROBLEM_KINDS, Families
from tunnelswitch.telemetry.phases import PHASES


def initialise(families: Families, deployment: Deployment, site: str, process: str) -> None:
    """Give every known label set of `process` at `site` its zero."""
    families.build_info.labels(version("tunnelswitch"), site, process).set(1)
    for kind in BAD_MESSAGE_KINDS:
        families.bad_messages.labels(kind)
    if process == "agent":
        for service in deployment.services_at(site):
            for kind in DRIVER_PROBLEM_KINDS[deployment.services[service].driver]:
                families.driver_problems.labels(kind)
        for other in deployment.sites:
            if other != site:
                families.path_downs.labels(other)
    for group in deployment.groups_at(site):
        _group(families, group)
        if site in group.servers:
            _server(families, group)
        elif site in group.gateways and process == "switcher":
            _switcher(families, group)
        elif site in group.gateways and deployment.sites[site].client_port:
            _watcher(families, group)


def _group(families: Families, group: Group) -> None:
    for reason in Reason:
        families.switches.labels(group.name, reason.value)
    families.refusals.labels(group.name)
    families.alarms.labels(group.name)
    families.reads_failed.labels(group.name)
    for result in ("committed", "refused", "unknown"):
        families.commits.labels(group.name, result)
    for kind in ("conflict", "failed"):
        families.switch_failures.labels(group.name, kind)


def _server(families: Families, group: Group) -> None:
    families.switch_seconds.labels(group.name)
    families.handovers_refused.labels(group.name)
    counted = (
        families.promote_seconds,
        families.promotion_failures,
        families.fence_failures,
        families.run_exits,
        families.checkpoint_pause,
        families.checkpoint_bytes,
    )
    for family in counted:
        for service in group.services:
            family.labels(service.name)


def _switcher(families: Families, group: Group) -> None:
    families.switch_seconds.labels(group.name)
    families.commit_seconds.labels(group.name)
    for phase in PHASES:
        families.failover_phase.labels(group.name, phase)


def _watcher(families: Families, group: Group) -> None:
    for service in group.services:
        families.downtime.labels(service.name)
        families.lost_packets.labels(service.name)
        families.unanswered.labels(service.name)  # nobody says so as long as clients are answered
