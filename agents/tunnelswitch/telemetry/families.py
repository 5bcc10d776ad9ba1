"""Every metric of a process, by name. docs/metrics.md explains each to operators; a test compares the two.

Base units, no machine-made `_created` series. What is known only by its age is in `ages.py`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

DOWNTIME_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)
QUICK_BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 5.0)
PAUSE_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
NAMESPACE = "tunnelswitch"

BAD_MESSAGE_KINDS = ("not_json", "too_large", "version", "type", "invalid", "subject", "source")
DRIVER_PROBLEM_KINDS = {
    "exec": ("notice_invalid", "notice_too_large", "notice_flood", "status_failed", "health_failed"),
    "colo": ("refused", "sync_failed", "peer_lost", "qmp_failed", "output_failed", "memory", "renewed"),
    "xen": (
        *("refused", "sync_failed", "peer_lost", "stream_ended", "receive_failed", "unasked_failover"),
        *("stale_removed", "xl_failed", "no_watch", "keeper_failed"),
    ),
}


class Families:
    """The metric families of one process, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.build_info = self._gauge("build_info", "1; says which process this is", "version", "site", "process")

        self.downtime = self._histogram(
            "downtime_seconds", "Gaps in the packets that clients received", DOWNTIME_BUCKETS, "service"
        )
        self.last_downtime = self._gauge("last_downtime_seconds", "The last such gap", "service")
        self.failover_downtime = self._gauge(
            "failover_downtime_seconds", "The longest such gap around the last move; 0: no packet was missed", "service"
        )
        self.last_gap = self._gauge("last_gap_seconds", "The last such gap, nominal spacing included", "service")
        self.jitter = self._gauge("jitter_max_seconds", "Greatest RFC 3550 jitter around the last gap", "service")
        self.lost_packets = self._counter("lost_packets", "RTP packets lost in gaps", "service")
        self.unanswered = self._gauge("clients_unanswered_seconds", "How long clients have had no answer", "service")
        self.client_port_unwatched = self._gauge(
            "client_port_unwatched", "1 while the clients' packets cannot be watched"
        )

        self.epoch = self._gauge("epoch", "Epoch of the highest record seen", "group")
        self.active_site = self._gauge("active_site", "1 at the site that serves", "group", "site")
        self.protected = self._gauge("protected", "1 while the record says that a standby is in sync", "group")
        self.paused = self._gauge("paused", "1 while an operator has paused automatic moves", "group")
        self.drained = self._gauge("drained", "1 while an operator has drained the site", "group", "site")
        self.switches = self._counter("switches", "Moves of the active role, by reason", "group", "reason")
        self.failover_phase = self._histogram(
            "failover_phase_seconds", "Phases of the moves that this switcher made", QUICK_BUCKETS, "group", "phase"
        )
        self.last_failover_phase = self._gauge(
            "last_failover_phase_seconds", "Phases of the last such move", "group", "phase"
        )
        self.refusals = self._counter("refusals", "Times that a switcher would not move a group", "group")
        self.moved_in_vain = self._gauge(
            "moved_in_vain", "1 while clients get no answer whom the last move did not help: no other is made", "group"
        )
        self.alarms = self._counter("alarms", "Alarms that a switcher raised", "group")

        self.tunnel_up = self._gauge(
            "tunnel_up", "1 while this end of the client tunnel exists", "site", "service", "tunnel", "remote"
        )
        self.foreign_tunnels = self._gauge("foreign_tunnels", "Interfaces that bear our names but not our mark")
        self.switch_seconds = self._histogram(
            "switch_seconds", "Tunnel transactions, from submitted to applied", QUICK_BUCKETS, "group"
        )
        self.switch_failures = self._counter("switch_failures", "Tunnel transactions that failed", "group", "kind")
        self.commit_seconds = self._histogram(
            "commit_seconds", "Commits of a record, until acknowledged", QUICK_BUCKETS, "group"
        )
        self.reads_failed = self._counter("reads_failed", "Reads of a record without a confirmed answer", "group")
        self.commits = self._counter("commits", "Commits of a record, by result", "group", "result")
        self._of_servers()
        self._of_every_process()

    def _of_servers(self) -> None:
        self.promote_seconds = self._histogram("promote_seconds", "Promotions here", QUICK_BUCKETS, "service")
        self.promotion_failures = self._counter("promotion_failures", "Promotions that failed", "service")
        self.fence_failures = self._counter("fence_failures", "Fences that failed", "service")
        self.handovers_refused = self._counter(
            "handovers_refused", "Planned moves that this site did not follow, for state would have been lost", "group"
        )
        self.run_exits = self._counter("run_exits", "Ends of the service's process that were seen", "service")
        self.service_protected = self._gauge(
            "service_protected", "1 while the copy here has or is a standby in sync", "service"
        )
        self.checkpoint_pause = self._histogram(
            "checkpoint_pause_seconds", "How long a checkpoint held the service", PAUSE_BUCKETS, "service"
        )
        self.checkpoint_bytes = self._counter("checkpoint_bytes", "Bytes of checkpoints", "service")
        self.health_failures = self._gauge(
            "health_failures", "How often in a row the health hook has failed", "service"
        )
        self.driver_problems = self._counter("driver_problems", "What went wrong between a driver and its copy", "kind")

    def _of_every_process(self) -> None:
        self.path_up = self._gauge("path_up", "1 while BFD says that the path is up", "site")
        self.path_downs = self._counter("path_downs", "Times that BFD took the path for down", "site")
        self.probe_mesh_wrong = self._gauge("probe_mesh_wrong", "1 while the probe tunnels are not as they should be")
        self.bus_connections = self._counter("bus_connections", "Connections to NATS that were made")
        self.bus_connected = self._gauge("bus_connected", "1 while connected to NATS")
        self.ovsdb_connected = self._gauge("ovsdb_connected", "1 while OVSDB answers")
        self.stream_leader = self._gauge("stream_leader", "1 at the site that leads the epoch store", "site")
        self.meta_leader = self._gauge("meta_leader", "1 at the site that leads JetStream itself", "site")
        self.bad_messages = self._counter("bad_messages", "Bus messages that were dropped", "kind")
        self.loop_lateness = self._histogram(
            "loop_lateness_seconds", "How late this process ran, when over 2 ms", QUICK_BUCKETS
        )

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace=NAMESPACE, registry=self.registry, buckets=buckets)
