"""The whole path on real Xen, once: a PVH guest is protected between two machines, an operator moves it over and back,
one machine is killed, a majority of the sites decides, and the guest answers again on the other one, through T3, with
what it knew.

It says whether that happened. Its times are those of an emulated processor and measure nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnelswitch.pki.identities import VIEWER
from tunnelswitch_lab import faults, netns, procs
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.agents import executable
from tunnelswitch_lab.experiment import CheckFailedError, client_tunnels, say
from tunnelswitch_lab.layout import Site
from tunnelswitch_lab.measure.events import BusEvent, read_events
from tunnelswitch_lab.measure.gaps import largest_gap_after
from tunnelswitch_lab.measure.runs import CapturedPacket, read_stream
from tunnelswitch_lab.measure.story import protected, record_of
from tunnelswitch_lab.options import LabError, LabOptions
from tunnelswitch_lab.testbed import Testbed
from tunnelswitch_lab.xen import machines
from tunnelswitch_lab.xen.image import GUEST, image, qemu_command

EVENTS, TRACE, CAPTURE = "events.jsonl", "rtp.trace", "client.pcap"
CHECKPOINT_INTERVAL_MS = 200.0
INTERVAL_SECONDS, MULTIPLIER = 0.2, 5
_CLIENT_SPACING_MS = 50
_START_SECONDS = 30.0
_PROTECTED_SECONDS = 150.0
_SWITCHOVER_SECONDS = 60.0
_CALM_SECONDS = 8.0
_ANSWER_SECONDS = 60.0
_STEADY_SECONDS = 3.0
_SAVE_SECONDS = 10.0
# Answered packets that a failover may lose: what was answered since the last checkpoint, generously.
_ROLLBACK_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class XenOptions:
    """Which lab, where the files go, and whether the lab stays up afterwards."""

    name: str
    out: Path
    keep: bool = False

    @property
    def lab(self) -> LabOptions:
        """Slow detection: on an emulated machine a checkpoint alone takes a tenth of a second."""
        return LabOptions(self.name, INTERVAL_SECONDS, MULTIPLIER, 0, "xen", CHECKPOINT_INTERVAL_MS)


async def run_xen(options: XenOptions) -> dict[str, Any]:
    """Build the lab, play it, judge it, take it down. Returns the summary.

    Raises:
        CheckFailedError: something did not happen as it must.
        LabError: it could not be played.
    """
    began_at = time.monotonic()
    shutil.rmtree(options.out / "logs", ignore_errors=True)
    (options.out / "logs").mkdir(parents=True)
    steps: dict[str, float] = {}

    def step(text: str) -> None:
        steps[text] = round(time.monotonic() - began_at, 1)
        say(f"[{steps[text]:5.1f} s] {text}")

    step("images (made the first time) and the lab")
    await asyncio.to_thread(lambda: (qemu_command(), image()))
    bed = await Testbed.up(options.lab)
    try:
        step("two Xen machines boot, and a guest in one of them")
        await bed.start_service()
        step("agents")
        await bed.start_agents()
        summary = await _play(bed, options.out, step)
    finally:
        await _keep_logs(bed, options.out)
        await (bed.close() if options.keep else bed.down())
    step("done")
    summary["steps_seconds"] = steps
    (options.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if summary["problems"]:
        raise CheckFailedError("; ".join(summary["problems"]))
    return summary


async def _play(bed: Testbed, out: Path, step: Callable[[str], None]) -> dict[str, Any]:
    active, target = names.SERVERS
    files = _start_clients(bed, out)
    await _until(lambda: _answers(files[CAPTURE]), "the client gets no answer", _START_SECONDS)
    step("the client is answered; waiting for the first checkpoints")
    await _protected(files[EVENTS], active)
    step("protected; a planned switchover, and back")
    for site in (target, active):
        await _switch_over(bed, site, files[EVENTS])
        step(f"{site} serves, the old guest was destroyed, and its host holds a copy in sync")
    await asyncio.sleep(_CALM_SECONDS)
    checkpoints = _checkpoints(_events(files[EVENTS]))
    _refuse_unplanned(_events(files[EVENTS]))
    await _save_keeper(bed.layout.site(active), out)
    fault_at = await bed.inject(faults.find("host-loss"), active)
    step(f"kill -9 of the machine at {active}, and its site with it")
    await _until(
        lambda: _answers(files[CAPTURE])[-1].arrived_ns / 1e9 > fault_at + _STEADY_SECONDS,
        "the guest does not answer again",
        _ANSWER_SECONDS,
    )
    step(f"the guest answers again, from {target}")
    await asyncio.sleep(_STEADY_SECONDS)
    answers, events = _answers(files[CAPTURE]), _events(files[EVENTS])
    domains = await machines.run(bed.layout.site(target), "xl list", _START_SECONDS)
    return _judge(answers, events, fault_at, await client_tunnels(bed), domains) | {"checkpoints_before": checkpoints}


async def _switch_over(bed: Testbed, site: str, events: Path) -> None:
    """An operator moves the group; returns when it is protected again. Raises LabError."""
    layout = bed.layout
    command = [str(executable()), "switchover", "--config", str(layout.deployment_file), "--to", site]
    command += ["--wait", f"{_SWITCHOVER_SECONDS:.0f}"]
    try:
        await procs.check_output(command, _SWITCHOVER_SECONDS + 10, layout.gateway.namespace)
    except (RuntimeError, TimeoutError) as error:
        raise LabError(f"the group does not move to {site}: {error}") from None
    await _protected(events, site)


async def _protected(events: Path, site: str) -> None:
    """Return when `site` is the active one and has a standby in sync. Raises LabError."""

    def there() -> bool:
        latest = _events(events, time.time() - 2)
        roles = {
            str(event.data.get("site")): service.get("role")
            for event in latest
            if event.kind == "heartbeat"
            for service in event.data.get("services") or ()
        }
        return protected(latest) and roles.get(site) == "active"

    await _until(there, f"{site} has no standby in sync", _PROTECTED_SECONDS)


def _refuse_unplanned(events: list[BusEvent]) -> None:
    reasons = {str(record_of(event).get("reason")) for event in events}
    if reasons & {"suspicion", "cut_off", "proof"}:
        raise LabError(f"the group moved before the fault, for {', '.join(sorted(reasons))}; the machine is too busy")


def _judge(
    answers: list[CapturedPacket], events: list[BusEvent], fault_at: float, tunnels: list[str], domains: str
) -> dict[str, Any]:
    records = [record for event in events if event.received_at > fault_at and (record := record_of(event))]
    moved = next((record for record in records if record.get("active") == names.SERVERS[1]), {})
    gap = largest_gap_after([answer.arrived_ns / 1e9 for answer in answers], fault_at)
    before = [answer.counter for answer in answers if answer.arrived_ns / 1e9 <= fault_at]
    after = [answer.counter for answer in answers if gap is not None and answer.arrived_ns / 1e9 >= gap.end_seconds]
    rollback = max(before) + 1 - after[0] if before and after else None
    running = [line.split()[4] for line in domains.splitlines() if line.split()[:1] == [GUEST]]
    checks = {
        "no record names the other site as active": not moved,
        f"the reason is {moved.get('reason')!r}, not suspicion": bool(moved) and moved.get("reason") != "suspicion",
        f"the gateway's client tunnels are {tunnels}": len(tunnels) != 1 or not tunnels[0].startswith("t3-"),
        f"xl list there does not show one {GUEST} that runs": len(running) != 1 or "p" in running[0],
        "the guest began anew: its counter did": rollback is None or min(after) < 10,
        f"it fell back by {rollback} answers": (rollback or 0) > _ROLLBACK_SECONDS_MAX * 1000 / _CLIENT_SPACING_MS,
    }
    return {
        "downtime_seconds": round(gap.downtime_seconds(_CLIENT_SPACING_MS / 1000), 3) if gap else None,
        "decided_after_seconds": _first(events, fault_at),
        "evidence": moved.get("evidence"),
        "gateway_tunnels": tunnels,
        "answers_fallen_back": rollback,
        "problems": [text for text, wrong in checks.items() if wrong],
    }


def _first(events: list[BusEvent], fault_at: float) -> float | None:
    times = [
        event.received_at - fault_at
        for event in events
        if event.received_at > fault_at and record_of(event).get("active") == names.SERVERS[1]
    ]
    return round(min(times), 3) if times else None


def _checkpoints(events: list[BusEvent]) -> dict[str, Any]:
    """What the active's site said of its checkpoints so far."""
    told = [event.data for event in events if event.kind == "checkpoint" and event.data.get("role") == "active"]
    pauses = sorted(float(one.get("pause_seconds", 0)) for one in told)
    sizes = sorted(int(one.get("bytes", 0)) for one in told)
    if not told:
        return {"number": 0}
    middle = len(told) // 2
    return {"number": len(told), "pause_seconds_median": pauses[middle], "bytes_median": sizes[middle]}


def _start_clients(bed: Testbed, out: Path) -> dict[str, Path]:
    layout = bed.layout
    files = {name: out / name for name in (EVENTS, TRACE, CAPTURE)}
    for path in files.values():
        path.unlink(missing_ok=True)
    module = "tunnelswitch_lab"
    recorder = ["--url", layout.gateway.nats_url, "--cluster", layout.name, "--out", str(files[EVENTS])]
    recorder += ["--key", str(VIEWER.seed(layout.keys))]
    client = ["--host", names.SERVICE_ADDRESS, "--port", str(names.RTP_PORT), "--out", str(files[TRACE])]
    client += ["--interval-ms", str(_CLIENT_SPACING_MS)]
    bed.spawn("gateway", [sys.executable, "-m", f"{module}.measure.events", *recorder], name="events")
    capture = ["--dev", "eth0", "--port", str(names.RTP_PORT), "--out", str(files[CAPTURE])]
    bed.spawn("client", [sys.executable, "-m", f"{module}.measure.capture", *capture], name="capture")
    bed.spawn("client", [sys.executable, "-m", f"{module}.workload.rtp_client", *client], name="rtp-client")
    return files


def _events(path: Path, since: float = 0.0) -> list[BusEvent]:
    return [event for event in read_events(path) if event.received_at >= since] if path.exists() else []


def _answers(path: Path) -> list[CapturedPacket]:
    """What the client's device got, half a second behind."""
    if not path.exists() or not path.stat().st_size:
        return []
    return read_stream(path, (names.SERVICE_ADDRESS, names.RTP_PORT)).packets


async def _until(condition: Callable[[], object], what: str, limit_seconds: float) -> None:
    async def check() -> bool:
        return bool(await asyncio.to_thread(condition))

    try:
        await netns.wait_for(check, what, limit_seconds, 0.5)
    except TimeoutError as error:
        raise LabError(str(error)) from None


async def _keep_logs(bed: Testbed, out: Path) -> None:
    """What processes and machines said, beside the summary."""
    for path in bed.layout.directory.glob("*.log"):
        shutil.copy(path, out / "logs" / path.name)
    for server in bed.layout.servers:
        with contextlib.suppress(LabError):  # one of them was killed
            await _save_keeper(server, out)


async def _save_keeper(server: Site, out: Path) -> None:
    said = await machines.run(server, "cat /run/xenkeeper/keeper.log; xl list", _SAVE_SECONDS)
    (out / "logs" / f"keeper-{server.name}.log").write_text(said, encoding="utf-8")
