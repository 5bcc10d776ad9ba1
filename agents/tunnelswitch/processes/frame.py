"""What every process of a site has in common: bus, epoch store, OVSDB, metrics, health, signals, and an orderly end.

Nothing that is absent at start stops a process: NATS, OVSDB and devices are retried for ever, and /healthz says what is
missing. Only a deployment file that cannot be used does.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from aioovs import AioOvsError, Database, SslFiles
from tunnelswitch.adapters import realtime
from tunnelswitch.adapters.nats_bus import NatsBus
from tunnelswitch.adapters.nats_epochs import NatsEpochs
from tunnelswitch.adapters.nats_meta import NatsMeta
from tunnelswitch.config import Deployment, Site
from tunnelswitch.core.deciding import READS_FAILED_MAX
from tunnelswitch.core.events import DataPlaneLost, DataPlaneSeen, ReadFailed, RecordRead
from tunnelswitch.core.member import Timing
from tunnelswitch.core.topology import Group, Tunnel, tunnel_ends
from tunnelswitch.dataplane import MONITORED
from tunnelswitch.pki.identities import Identity, Role
from tunnelswitch.processes.connecting import access, epoch_store, leading_order
from tunnelswitch.processes.executor import Executor
from tunnelswitch.processes.parts import Startable, bounded, started
from tunnelswitch.processes.pump import Machine, Pump
from tunnelswitch.telemetry.http import TelemetryServer
from tunnelswitch.telemetry.metrics import Metrics

OVSDB_CONNECT_SECONDS = 1.0
OVSDB_RETRY_SECONDS = 1.0

_log = structlog.get_logger("tunnelswitch.process")


@dataclass
class Frame:
    """One process of one site. `kind` is agent or switcher."""

    deployment: Deployment
    site: str
    kind: str
    incarnation: str = field(default_factory=lambda: secrets.token_hex(4))
    missing: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.deployment, self.site, self.kind)
        self._pump: Pump | None = None
        self._reads_failed = 0
        self.missing["bus"] = "not connected to NATS yet"

    @property
    def here(self) -> Site:
        return self.deployment.sites[self.site]

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.deployment.groups_at(self.site)

    @property
    def timing(self) -> Timing:
        detection = self.deployment.detection
        return Timing(
            interval_seconds=detection.interval_seconds,
            window_seconds=detection.window_seconds,
            fence_after_seconds=detection.fence_after_seconds,
            unanswered_seconds=detection.unanswered_seconds,
            ceiling_seconds=detection.longest_window_seconds,
            false_silences_per_day=detection.false_silences_per_day,
        )

    def ends(self, group: Group) -> tuple[Tunnel, ...]:
        return tunnel_ends(group, self.site, self.deployment.addresses())

    def emit(self, event: object) -> None:
        """Where adapters put what they see."""
        if isinstance(event, DataPlaneLost):
            self.missing["ovsdb"] = event.error
        elif isinstance(event, DataPlaneSeen):
            self.missing.pop("ovsdb", None)
        if self._pump is not None:
            self._pump.post(event)

    def _observe(self, thing: object, now: float) -> None:
        self.metrics.observe(thing, now)
        if type(thing) is ReadFailed:
            self._reads_failed += 1
            if self._reads_failed >= READS_FAILED_MAX:
                if not self.missing.keys() & {"bus", "store"}:
                    _log.error("the epoch store cannot be read", error=thing.error, remedy="most NATS nodes must be up")
                self.missing["store"] = f"epoch store: {thing.error}"
        elif type(thing) is RecordRead:
            self._reads_failed = 0
            if self.missing.pop("store", None):
                _log.info("the epoch store can be read again")

    def bus(self, kinds: Iterable[str]) -> NatsBus:
        cluster = self.deployment.cluster
        identity = Identity(self.site, Role(self.kind))
        return NatsBus(
            cluster.nats_urls,
            cluster=cluster.name,
            source=identity.name,
            kinds=kinds,
            emit=self.emit,
            preferred_url=self.here.nats_url or None,
            access=access(self.deployment, identity),
            on_bad=self.metrics.bad_message,
            on_state=self._bus_state,
        )

    def _bus_state(self, url: str | None) -> None:
        self.metrics.bus_state(url is not None)
        if url is None:
            self.missing["bus"] = "lost the connection to NATS"
        else:
            self.missing.pop("bus", None)

    def epochs(self) -> NatsEpochs:
        role = Role.STORE if self.kind == "switcher" else Role.AGENT
        return epoch_store(self.deployment, Identity(self.site, role), self.here.nats_url or None)

    def meta_leader(self) -> NatsMeta | None:
        """None without an identity in the servers' system account: JetStream's own leader then stays where it is."""
        cluster = self.deployment.cluster
        identity = Identity(self.site, Role.SYSTEM)
        if not cluster.keys or not identity.seed(Path(cluster.keys)).exists():
            wanted = identity.seed(Path(cluster.keys or "KEYS"))
            _log.warning(
                "JetStream's own leader is not kept off the active site", remedy=f"cluster.keys, with {wanted}"
            )
            return None
        return NatsMeta(
            cluster.nats_urls,
            source=identity.name,
            servers=leading_order(self.deployment),
            access=access(self.deployment, identity),
            preferred_url=self.here.nats_url or None,
            on_leader=self.metrics.meta_leader,
        )

    def database(self) -> Database:
        tls = self.here.tls
        ssl = SslFiles(tls.private_key, tls.certificate, tls.ca) if tls else None
        self.missing["ovsdb"] = f"{self.here.ovsdb} has not answered yet"
        return Database(
            self.here.ovsdb,
            tables=MONITORED,
            ssl=ssl,
            connect_deadline_seconds=OVSDB_CONNECT_SECONDS,
            liveness_interval_seconds=0.5,
        )

    # ------------------------------------------------------------------ running

    async def run(
        self,
        machine: Machine,
        executor: Executor,
        *,
        parts: Iterable[Startable],
        database: Database,
        on_database: Iterable[Startable] = (),
        ready: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """Run until SIGTERM or SIGINT.

        Args:
            parts: started at once, closed in reverse order.
            on_database: started when OVSDB answers for the first time.
            ready: what else is missing, one line each.
        """
        runtime = self.deployment.runtime
        realtime.prepare(
            slice_seconds=runtime.slice_seconds,
            priority=runtime.realtime_priority,
            lock_memory=runtime.lock_memory,
        )
        pump = self._pump = Pump(machine, executor.perform, observe=self._observe)
        executor.connect(pump.post)
        self.metrics.pull("refused_actions", lambda: executor.refused)
        self.metrics.watch_ovsdb(lambda: database.connected)
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)

        def reasons() -> list[str]:
            return [*self.missing.values(), *ready()]

        address = self.here.agent_metrics if self.kind == "agent" else self.here.switcher_metrics
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(started(TelemetryServer(address, self.metrics, reasons)))
            stack.push_async_callback(executor.close)
            for part in parts:
                await stack.enter_async_context(started(part))
            pump.start()
            stack.callback(pump.stop)
            opening = asyncio.create_task(self._open(database, tuple(on_database)))
            stack.push_async_callback(_cancel, opening)
            stack.push_async_callback(bounded, *(part.close for part in on_database), database.close)
            _log.info("started", site=self.site, process=self.kind, incarnation=self.incarnation)
            await stopped.wait()
            _log.info("stopping; clients' traffic stays as it is", site=self.site, process=self.kind)

    async def _open(self, database: Database, waiting: tuple[Startable, ...]) -> None:
        said = ""
        while True:
            try:
                await database.open()
            except AioOvsError as error:
                self.emit(DataPlaneLost(str(error)))
                if str(error) != said:
                    said = str(error)
                    _log.error(
                        "OVSDB does not answer, trying for ever",
                        remote=self.here.ovsdb,
                        error=said,
                        remedy=f"start openvswitch, or correct sites.{self.site}.ovsdb",
                    )
                await asyncio.sleep(OVSDB_RETRY_SECONDS)
            else:
                break
        self.missing.pop("ovsdb", None)
        for part in waiting:
            await part.start()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def unix_offset_seconds() -> float:
    """Unix time less the pump's clock, for reports."""
    return time.time() - Pump.now()
