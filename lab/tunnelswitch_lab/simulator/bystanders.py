"""Who looks on at a simulated deployment: the gateways' eyes on their clients, and the servers' watchdogs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunnelswitch.core import events
from tunnelswitch_lab.simulator.fabric import Reached

if TYPE_CHECKING:
    from tunnelswitch_lab.simulator.world import World

UNANSWERED_SECONDS = 0.1
WATCHDOG_SECONDS = 0.4
WATCHDOG_LOOK_SECONDS = 0.1
REBOOT_SECONDS = 1.0


class Clients:
    """Do the clients of each gateway get answers? Told again while they do not, and once when it is over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._unanswered_since: dict[tuple[str, str], float] = {}
        self._complained: set[tuple[str, str]] = set()
        world.timeline.after(world.setup.delays.clients_look, self._look)

    def answer(self, answering: frozenset[Reached]) -> None:
        """Who answers them has changed."""
        world = self._world
        for gateway in world.group.gateways:
            for service in world.hypervisors:
                key = (gateway, service)
                if any(one.gateway == gateway and one.service == service for one in answering):
                    self._unanswered_since.pop(key, None)
                else:
                    self._unanswered_since.setdefault(key, world.now)

    def _look(self) -> None:
        world = self._world
        for gateway in world.group.gateways:
            for service in world.hypervisors:
                key = (gateway, service)
                since = self._unanswered_since.get(key)
                if since is not None and world.now - since > UNANSWERED_SECONDS:
                    self._complained.add(key)
                    world.tell(gateway, events.ClientsSeen(service, world.now - since))
                elif since is None and key in self._complained:
                    self._complained.discard(key)
                    world.tell(gateway, events.ClientsSeen(service, 0.0, answered=True))
        world.timeline.after(world.setup.delays.clients_look, self._look)


class Watchdogs:
    """Each server's: kicked while its agent says that the site is fit, else the host dies (PROTOCOL A3)."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._fit_at = dict.fromkeys(world.group.servers, world.now)
        world.timeline.after(WATCHDOG_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        world = self._world
        for site, fit_at in self._fit_at.items():
            process = world.processes.get(site)
            if site in world.network.unpowered or process is None:
                self._fit_at[site] = world.now
                continue
            machine: Any = process.machine
            local = world.clocks[site].local()
            if process.alive and not process.paused and machine.fit(local):
                self._fit_at[site] = world.now
            elif world.now - fit_at >= WATCHDOG_SECONDS - WATCHDOG_LOOK_SECONDS:
                world.note(f"watchdog of {site}", "resets the host")
                world.lose_host(site)
                world.timeline.after(REBOOT_SECONDS, world.boot, site)
        world.timeline.after(WATCHDOG_LOOK_SECONDS, self._look)
