"""`tunnelswitch status`: the records as the epoch store holds them, how well each copy of each service is protected as
its site says on the bus, and what every process says of its health.

Reads only. What does not answer in time is shown as such, and delays nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TypedDict

from tunnelswitch.bus.turns import TURN_SECONDS
from tunnelswitch.config import Deployment
from tunnelswitch.config.values import split_endpoint
from tunnelswitch.core.facts import GroupRecord, Heartbeat
from tunnelswitch.errors import RecordMissingError, TunnelswitchError
from tunnelswitch.pki.identities import VIEWER
from tunnelswitch.processes.connecting import epoch_store, viewer_bus

READ_SECONDS = 3.0
HEALTH_SECONDS = 2.0
HEARTBEATS = 3  # so many intervals, and not less than a second, for every server to be heard, and then a turn
HEARTBEATS_SECONDS_MIN = 1.0
ANSWER_MAX_BYTES = 65536


class GroupStatus(TypedDict, total=False):
    """The record of one group as the epoch store holds it; only `error` if it could not be read."""

    epoch: int
    stamp: str
    active: str
    previous: str
    in_sync: bool
    reason: str
    evidence: list[str]
    decided_by: str
    decided_at: float
    voters: list[str]
    gateways: list[str]
    drained: list[str]
    paused: str
    paused_at: float
    error: str


class CopyStatus(TypedDict, total=False):
    """One copy of a service; `error` if its site has not said it. `state`: unprotected, syncing, protected, degraded or
    stopped; `why` says what is missing to a sound protection."""

    service: str
    site: str
    role: str
    state: str
    why: str
    progress: float
    checkpoint_sequence: int
    checkpoint_age_seconds: float
    gate_open: bool
    error: str


class ProcessStatus(TypedDict, total=False):
    """One process' /healthz; `error` says why it did not answer, and then `ready` is False."""

    site: str
    process: str
    address: str
    ready: bool
    reasons: list[str]
    error: str


class StatusReport(TypedDict):
    """The whole deployment."""

    cluster: str
    groups: dict[str, GroupStatus]
    copies: list[CopyStatus]
    processes: list[ProcessStatus]


async def collect(deployment: Deployment) -> StatusReport:
    """Ask the epoch store and every process at the same time."""
    epochs = epoch_store(deployment, VIEWER, awaited=True)
    await epochs.start()

    async def record(group: str) -> tuple[str, GroupStatus]:
        try:
            await epochs.require(READ_SECONDS)
            found, _ = await epochs.read(group, READ_SECONDS)
        except TunnelswitchError as error:
            return group, {"error": error.diagnostics()}
        return group, _group(found) if found else {"error": RecordMissingError(group).diagnostics()}

    try:
        groups, copies, processes = await asyncio.gather(
            asyncio.gather(*(record(group) for group in deployment.groups)),
            _copies(deployment),
            asyncio.gather(*(_health(*endpoint) for endpoint in _endpoints(deployment))),
        )
    finally:
        await epochs.close()
    return {
        "cluster": deployment.cluster.name,
        "groups": dict(groups),
        "copies": copies,
        "processes": list(processes),
    }


async def _copies(deployment: Deployment) -> list[CopyStatus]:
    """Listen until every server site has said how all of its copies are, or for a little while."""
    wanted = {site: deployment.services_at(site) for site in deployment.sites if deployment.services_at(site)}
    heard: dict[str, Heartbeat] = {}
    complete = asyncio.Event()

    def hear(event: object) -> None:
        if isinstance(event, Heartbeat) and event.site in wanted:
            heard[event.site] = event
            if all(site in heard and len(heard[site].services) >= len(here) for site, here in wanted.items()):
                complete.set()

    problem = "its agent is not heard"
    # Many services are said in turns.
    seconds = TURN_SECONDS + max(HEARTBEATS_SECONDS_MIN, HEARTBEATS * deployment.detection.interval_seconds)
    try:
        async with viewer_bus(deployment, ("heartbeat",), hear):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await complete.wait()
    except TunnelswitchError as error:
        problem = error.diagnostics()
    return [_copy(service, site, heard.get(site), problem) for site, here in wanted.items() for service in here]


def _copy(service: str, site: str, beat: Heartbeat | None, problem: str) -> CopyStatus:
    status = next((status for status in beat.services if status.service == service), None) if beat else None
    if status is None:
        return {"service": service, "site": site, "error": "its site has not said how it is" if beat else problem}
    return {
        "service": service,
        "site": site,
        "role": status.role,
        "state": status.state,
        "why": status.why,
        "progress": status.progress,
        "checkpoint_sequence": status.checkpoint_sequence,
        "checkpoint_age_seconds": status.checkpoint_age_seconds,
        "gate_open": status.gate_open,
    }


def _group(record: GroupRecord) -> GroupStatus:
    return {
        "epoch": record.stamp.epoch,
        "stamp": str(record.stamp),
        "active": record.active,
        "previous": record.previous,
        "in_sync": record.in_sync,
        "reason": str(record.reason),
        "evidence": list(record.evidence),
        "decided_by": record.decided_by,
        "decided_at": record.decided_at,
        "voters": list(record.voters),
        "gateways": list(record.gateways),
        "drained": list(record.drained),
        "paused": record.paused,
        "paused_at": record.paused_at,
    }


def _endpoints(deployment: Deployment) -> list[tuple[str, str, str]]:
    found = [(name, "agent", site.agent_metrics) for name, site in deployment.sites.items()]
    found += [(name, "switcher", site.switcher_metrics) for name, site in deployment.sites.items()]
    return [endpoint for endpoint in found if endpoint[2]]


async def _health(site: str, process: str, address: str) -> ProcessStatus:
    status: ProcessStatus = {"site": site, "process": process, "address": address, "ready": False}
    try:
        async with asyncio.timeout(HEALTH_SECONDS):
            answer = json.loads(await _get(address, "/healthz"))
        status["ready"] = answer["ready"] is True
        status["reasons"] = [str(reason) for reason in answer["reasons"]]
    except TimeoutError:
        status["error"] = f"no answer within {HEALTH_SECONDS:g} s"
    except OSError as error:
        status["error"] = error.strerror or str(error)
    except (ValueError, KeyError, TypeError):
        status["error"] = "what answers there is not one of ours"
    return status


async def _get(address: str, path: str) -> bytes:
    """The body of one HTTP answer, bounded."""
    endpoint = split_endpoint(address)
    if endpoint is None:
        raise ValueError(address)
    reader, writer = await asyncio.open_connection(*endpoint)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
        answer = await reader.read(ANSWER_MAX_BYTES)
        while chunk := await reader.read(ANSWER_MAX_BYTES):
            answer = (answer + chunk)[:ANSWER_MAX_BYTES]
        return answer.partition(b"\r\n\r\n")[2]
    finally:
        writer.close()
