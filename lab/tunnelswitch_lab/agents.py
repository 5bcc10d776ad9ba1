"""Start the programs under test in a lab: the agents of every site, and the switcher beside the gateway.

They are run as an operator runs them, by their command line and one configuration file; nothing of them is imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tunnelswitch_lab import netns, procs
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.procs import Proc

_INIT_SECONDS = 60.0
_READY_SECONDS = 30.0


async def start(layout: Layout, spawn: Callable[..., Proc]) -> None:
    """Create the epochs' records, start all agents and the switcher, and return when every one says that it is ready.

    Raises LabError that names who is not, and where its log is.
    """
    program, configuration = str(executable()), str(layout.deployment_file)
    try:
        await procs.check_output([program, "init", "--config", configuration], _INIT_SECONDS, layout.gateway.namespace)
    except (RuntimeError, TimeoutError) as error:
        raise LabError(f"the epochs' records cannot be created: {error}") from None
    endpoints = {f"agent-{site.name}": (site, site.agent_metrics) for site in layout.sites}
    endpoints[f"switcher-{layout.gateway.name}"] = (layout.gateway, layout.gateway.switcher_metrics)
    started = {}
    for name, (site, _) in endpoints.items():
        command = [program, name.partition("-")[0], "--config", configuration, "--site", site.name]
        started[name] = spawn(site.namespace, command, name=name, nice=procs.AGENTS_NICE)
    for name, (site, endpoint) in endpoints.items():
        await wait_ready(started[name], site.namespace, endpoint)


def start_carriers(layout: Layout, spawn: Callable[..., Proc]) -> None:
    """Start what carries the checkpoints of a virtual machine; beside the hypervisors, for these wait for it."""
    for server in layout.servers:
        command = [str(executable()), "carry", "--config", str(layout.deployment_file), "--site", server.name]
        spawn(server.namespace, command, name=f"carrier-{server.name}", nice=procs.FURNITURE_NICE)


def executable() -> Path:
    """The `tunnelswitch` command of the environment that this Python belongs to."""
    return Path(sys.executable).with_name("tunnelswitch")


def check_alive(proc: Proc) -> None:
    """Raise LabError with the last line of its log if a process has ended."""
    if proc.alive:
        return
    log = Path(proc.log)
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    raise LabError(f"{proc.name} has ended: {lines[-1] if lines else 'it said nothing'} (log: {log})")


async def wait_ready(proc: Proc, namespace: str, endpoint: str, seconds: float = _READY_SECONDS) -> None:
    """Return when a program says at HOST:PORT that it is ready. Raises LabError with what it says instead."""
    last = "no answer"

    async def ready() -> bool:
        nonlocal last
        check_alive(proc)
        try:
            code, body = await netns.http_get(namespace, endpoint, "/healthz")
        except (OSError, TimeoutError):
            return False
        last = f"{code} {body.decode(errors='replace').strip()[:200]}"
        try:
            return code == 200 and json.loads(body).get("ready") is True
        except (ValueError, AttributeError):
            return False

    try:
        await netns.wait_for(ready, proc.name, seconds)
    except TimeoutError:
        message = f"{proc.name} is not ready after {seconds:g} s: {last} (log: {proc.log})"
        raise LabError(message) from None
