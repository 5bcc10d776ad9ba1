"""One process' metrics, fed with every event and action that passes the pump.

Never raises into the decision loop for a value, and costs microseconds: a heartbeat is one assignment. Decides nothing
and reads no clock of its own except at a scrape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import generate_latest

from tunnelswitch.config import Deployment
from tunnelswitch.core import actions, events, facts
from tunnelswitch.core.facts import GroupRecord
from tunnelswitch.core.patience import Patience
from tunnelswitch.core.topology import Tunnel, tunnel_ends
from tunnelswitch.ports import ServiceDriver
from tunnelswitch.telemetry.ages import PULLED, Ages
from tunnelswitch.telemetry.families import Families
from tunnelswitch.telemetry.initial import initialise
from tunnelswitch.telemetry.machines import Machines
from tunnelswitch.telemetry.phases import PHASES, phase_seconds
from tunnelswitch.telemetry.spoken import Spoken
from tunnelswitch.telemetry.windows import Windows

COMMITS_WAITING_MAX = 256
AFTER_MOVE_SECONDS = 2.0  # a gap that began so late after a move is none of its doing


class Metrics:
    """The metrics of `process` (agent or switcher) at `site`."""

    def __init__(self, deployment: Deployment, site: str, process: str) -> None:
        self.site = site
        self.process = process
        self.families = Families()
        self.ages = Ages()
        self.families.registry.register(self.ages)
        self._records: dict[str, GroupRecord] = {}
        self.spoken = Spoken(
            site if process == "agent" else "",
            deployment.groups_at(site),
            self._records,
            self.ages.heartbeats,
            deployment.detection.window_seconds,
        )
        self.families.registry.register(self.spoken)
        self.windows = Windows(deployment.detection.limits)
        self.families.registry.register(self.windows)
        self.machines = Machines()
        self.families.registry.register(self.machines)
        self._commits: dict[str, float] = {}
        watches = process == "agent" and bool(deployment.sites[site].client_port)
        self._watched = {
            group.name: [service.name for service in group.services]
            for group in deployment.groups_at(site)
            if watches and site in group.gateways
        }
        self._moved: dict[str, tuple[float, float]] = {}
        self._sites = tuple(deployment.sites)
        self._ends = {
            end.interface: end
            for group in deployment.groups_at(site)
            for end in tunnel_ends(group, site, deployment.addresses())
        }
        self._ends_of: dict[str, dict[str, Tunnel]] = {}
        for name, end in self._ends.items():
            self._ends_of.setdefault(end.group, {})[name] = end
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            facts.Heartbeat: self._heartbeat,
            facts.Epoch: lambda event, now: self._record(event.record, now),
            facts.Traffic: self._traffic,
            facts.CheckpointSeen: self._checkpoint,
            events.RecordRead: lambda event, now: self._record(event.record, now),
            events.ReadFailed: lambda event, now: self.families.reads_failed.labels(event.group).inc(),
            events.Committed: self._committed,
            events.CommitRefused: lambda event, now: self._commit_ended(event.group, "refused"),
            events.CommitUnknown: lambda event, now: self._commit_ended(event.group, "unknown"),
            events.DataPlaneSeen: self._data_plane,
            events.SwitchApplied: self._switched,
            events.SwitchConflict: lambda event, now: self._switch_failed(event.group, "conflict"),
            events.SwitchFailed: lambda event, now: self._switch_failed(event.group, "failed"),
            events.ServiceSeen: self._service,
            events.Promoted: self._promoted,
            events.PromotionFailed: lambda event, now: self.families.promotion_failures.labels(event.service).inc(),
            events.FenceFailed: lambda event, now: self.families.fence_failures.labels(event.service).inc(),
            events.RunExited: lambda event, now: self.families.run_exits.labels(event.service).inc(),
            events.PathChanged: self._path,
            events.LoopLate: lambda event, now: self.families.loop_lateness.observe(event.lateness_seconds),
            events.LeaderSeen: self._leader,
            events.ClientsSeen: self._clients,
            actions.Publish: self._published,
            actions.CommitRecord: self._committing,
        }
        initialise(self.families, deployment, site, process)

    # ------------------------------------------------------------------ in

    def observe(self, thing: object, now: float) -> None:
        """Take one event or action; kinds that say nothing here are ignored. `now` is CLOCK_MONOTONIC."""
        if (handler := self._handlers.get(type(thing))) is not None:
            handler(thing, now)

    def bad_message(self, kind: str) -> None:
        """A bus message was dropped."""
        self.families.bad_messages.labels(kind).inc()

    def driver_problem(self, kind: str) -> None:
        """A driver ignored something bad."""
        self.families.driver_problems.labels(kind).inc()

    def bus_state(self, connected: bool) -> None:
        """NATS came or went."""
        self.families.bus_connected.set(connected)
        if connected:
            self.families.bus_connections.inc()

    def watch_windows(self, source: Callable[[], Mapping[str, Patience]]) -> None:
        """Ask at every scrape how long each site may be silent."""
        self.windows.source = source

    def meta_leader(self, leader: str | None) -> None:
        """JetStream's own leader was looked up; None: it is no site's node."""
        for site in self._sites:
            self.families.meta_leader.labels(site).set(site == leader)

    def watch_ovsdb(self, connected: Callable[[], bool]) -> None:
        """Ask at every scrape whether OVSDB answers."""
        self.families.ovsdb_connected.set_function(lambda: float(connected()))

    def watch_probe_mesh(self, problem: Callable[[], str]) -> None:
        """Ask at every scrape what is wrong with the probe mesh; empty: nothing."""
        self.families.probe_mesh_wrong.set_function(lambda: float(bool(problem())))

    def watch_client_port(self, problem: Callable[[], str]) -> None:
        """Ask at every scrape why the clients' packets are not watched; empty: they are."""
        self.families.client_port_unwatched.set_function(lambda: float(bool(problem())))

    def watch_moves(self, group: str, in_vain: Callable[[], bool]) -> None:
        """Ask at every scrape whether clients wait for whom a group is not moved again."""
        self.families.moved_in_vain.labels(group).set_function(lambda: float(in_vain()))

    def watch_health(self, service: str, driver: ServiceDriver) -> None:
        """Ask at every scrape how often in a row the copy here was found unhealthy."""
        self.families.health_failures.labels(service).set_function(lambda: driver.health_failures)

    def pull(self, name: str, source: Callable[[], int]) -> None:
        """Read a counter from its owner at every scrape; `name` is one of `ages.PULLED`."""
        if name not in PULLED:
            raise ValueError(f"{name} is not one of {', '.join(PULLED)}")
        self.ages.sources[name] = source

    def render(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        return generate_latest(self.families.registry)

    # ------------------------------------------------------------------ by type

    def _heartbeat(self, event: facts.Heartbeat, now: float) -> None:
        self.ages.heartbeats[event.site] = now

    def _record(self, record: GroupRecord | None, now: float) -> None:
        if record is None:
            return
        if (known := self._records.get(record.group)) is not None and known.stamp >= record.stamp:
            return
        self._records[record.group] = record
        families = self.families
        families.epoch.labels(record.group).set(record.stamp.epoch)
        families.protected.labels(record.group).set(record.in_sync)
        families.paused.labels(record.group).set(bool(record.paused))
        for site in self._sites:
            families.active_site.labels(record.group, site).set(site == record.active)
            families.drained.labels(record.group, site).set(site in record.drained)
        if known is not None and known.active != record.active:
            families.switches.labels(record.group, record.reason.value).inc()
            for service in self._watched.get(record.group, ()):
                self._moved[service] = (now, 0.0)
                families.failover_downtime.labels(service).set(0.0)

    def _traffic(self, event: facts.Traffic, now: float) -> None:
        families = self.families
        families.downtime.labels(event.service).observe(event.downtime_seconds)
        families.last_downtime.labels(event.service).set(event.downtime_seconds)
        moved_at, longest_seconds = self._moved.get(event.service, (-math.inf, 0.0))
        if now - moved_at <= event.gap_seconds + AFTER_MOVE_SECONDS and event.downtime_seconds > longest_seconds:
            self._moved[event.service] = (moved_at, event.downtime_seconds)
            families.failover_downtime.labels(event.service).set(event.downtime_seconds)
        families.last_gap.labels(event.service).set(event.gap_seconds)
        families.jitter.labels(event.service).set(event.jitter_max_seconds)
        families.lost_packets.labels(event.service).inc(max(0, event.lost_packets))

    def _checkpoint(self, event: facts.CheckpointSeen, now: float) -> None:
        if event.site != self.site:
            return
        self.ages.checkpoints[event.service] = now
        self.families.checkpoint_pause.labels(event.service).observe(event.pause_seconds)
        self.families.checkpoint_bytes.labels(event.service).inc(max(0, event.bytes))

    def _committing(self, action: actions.CommitRecord, now: float) -> None:
        if len(self._commits) < COMMITS_WAITING_MAX:
            self._commits[action.record.group] = now

    def _committed(self, event: events.Committed, now: float) -> None:
        started_at = self._commits.get(event.record.group)
        if started_at is not None:
            self.families.commit_seconds.labels(event.record.group).observe(now - started_at)
        self._commit_ended(event.record.group, "committed")
        self._record(event.record, now)

    def _commit_ended(self, group: str, result: str) -> None:
        self._commits.pop(group, None)
        self.families.commits.labels(group, result).inc()

    def _data_plane(self, event: events.DataPlaneSeen, now: float) -> None:
        self.families.foreign_tunnels.set(len(event.foreign))
        self._tunnels(event.present, self._ends)

    def _switched(self, event: events.SwitchApplied, now: float) -> None:
        self.families.switch_seconds.labels(event.group).observe(event.applied_at - event.submitted_at)
        self._tunnels(event.present, self._ends_of.get(event.group, {}))

    def _tunnels(self, present: frozenset[str], ends: dict[str, Tunnel]) -> None:
        for name, end in ends.items():
            labels = (self.site, end.service, end.label, end.remote_site)
            self.families.tunnel_up.labels(*labels).set(name in present)

    def _switch_failed(self, group: str, kind: str) -> None:
        self.families.switch_failures.labels(group, kind).inc()

    def _service(self, event: events.ServiceSeen, now: float) -> None:
        self.families.service_protected.labels(event.service).set(event.protection is facts.Protection.PROTECTED)

    def _promoted(self, event: events.Promoted, now: float) -> None:
        self.families.promote_seconds.labels(event.service).observe(event.seconds)

    def _path(self, event: events.PathChanged, now: float) -> None:
        self.families.path_up.labels(event.site).set(event.path is facts.Path.UP)
        if event.path is facts.Path.DOWN:
            self.families.path_downs.labels(event.site).inc()

    def _leader(self, event: events.LeaderSeen, now: float) -> None:
        for site in self._sites:
            self.families.stream_leader.labels(site).set(site == event.site)

    def _clients(self, event: events.ClientsSeen, now: float) -> None:
        self.families.unanswered.labels(event.service).set(event.unanswered_seconds)

    def _published(self, action: actions.Publish, now: float) -> None:
        message = action.message
        if isinstance(message, facts.Heartbeat):
            self.spoken.last = message
        elif isinstance(message, facts.Decision):
            if message.action == "refuse":
                self.families.refusals.labels(message.group).inc()
            elif message.action == "alarm":
                self.families.alarms.labels(message.group).inc()
        elif isinstance(message, facts.HandoverRefused):
            self.families.handovers_refused.labels(message.group).inc()
        elif isinstance(message, facts.Failover):
            self._failover(message)

    def _failover(self, report: facts.Failover) -> None:
        families = self.families
        took = phase_seconds(report.marks)
        for phase in PHASES:
            if phase in took:
                families.failover_phase.labels(report.group, phase).observe(took[phase])
                families.last_failover_phase.labels(report.group, phase).set(took[phase])
            else:  # the last move had none
                families.last_failover_phase.remove(report.group, phase)
