"""Remove a lab completely, in whatever state it is: ready, half built, or left behind by a killed command.

It relies on the namespaces' names and on what runs inside them; lab.json is a second source, never a condition.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from tunnelswitch_lab import netns, procs
from tunnelswitch_lab.layout import RUN_ROOT, Layout, Site
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.state import State, erase, locked

_NAMESPACE = re.compile(r"tsw-([a-z][a-z0-9]*)-")
_EXIT_SECONDS = 2.0
_KILL_SECONDS = 5.0
_ROUNDS = 3


def leftovers(layout: Layout) -> bool:
    """Whether anything of this lab exists on the machine."""
    return layout.directory.exists() or bool(netns.existing(layout.prefix))


def labs() -> list[str]:
    """Names of all labs of which something is on this machine."""
    found = {path.name for path in RUN_ROOT.glob("*") if path.is_dir()}
    found |= {match[1] for namespace in netns.existing("tsw-") if (match := _NAMESPACE.match(namespace))}
    return sorted(found)


async def remove(layout: Layout) -> bool:
    """Remove a lab under its lock; returns whether there was anything of it. Raises LabError."""
    if not leftovers(layout):
        return False
    with locked(layout):
        await demolish(layout)
    return True


async def demolish(layout: Layout) -> None:
    """Remove every process, namespace and file of a lab. The caller holds its lock.

    Raises LabError if a process outlives SIGKILL.
    """
    await asyncio.gather(*(_dismiss_switch(site) for site in layout.sites))
    await kill_inside(layout, keep=frozenset())
    for namespace in netns.existing(layout.prefix):
        netns.remove(namespace)
    erase(layout)


async def kill_inside(layout: Layout, keep: frozenset[int]) -> None:
    """SIGKILL everything in the lab's namespaces and in its record, but not the pids in `keep`.

    Raises LabError if something does not die.
    """
    left: set[int] = set()
    for _ in range(_ROUNDS):  # a process may have had a child after we looked
        victims = (netns.processes_inside(netns.existing(layout.prefix)) | _recorded(layout)) - keep
        if not victims:
            return
        procs.kill_all(procs.open_all(victims))
        left = await procs.wait_gone(victims, _KILL_SECONDS)
    if left:
        raise LabError(f"processes {sorted(left)} of lab {layout.name!r} do not die: look at them with ps, then repeat")


def _recorded(layout: Layout) -> set[int]:
    with contextlib.suppress(LabError):
        return {proc.pid for proc in State.load(layout.name).procs if proc.alive}
    return set()


async def _dismiss_switch(site: Site) -> None:
    """Let vswitchd take its devices away before its database goes. A switch that is not there is no error."""
    if not site.switch_control.exists():
        return
    with contextlib.suppress(RuntimeError, TimeoutError, FileNotFoundError):
        command = ["ovs-appctl", "-t", str(site.switch_control), "exit", "--cleanup"]
        await procs.check_output(command, _EXIT_SECONDS)
