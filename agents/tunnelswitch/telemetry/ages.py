"""Metrics that are worked out when somebody asks: ages, and counts that others keep.

Noting a heartbeat is one assignment, so that hundreds a second cost nothing. Reads clocks at a scrape only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tunnelswitch.telemetry.families import NAMESPACE

PULLED = {
    "stale_messages": "Heartbeats dropped as old or repeated",
    "bus_dropped_messages": "Messages that could not be sent",
    "client_packets_dropped": "Packets at the client port that were not read in time",
    "refused_actions": "Actions not started because too many were under way",
}


class Ages(Collector):
    """Heard sites, checkpoints, and counters that are read from their owners."""

    def __init__(self) -> None:
        self.heartbeats: dict[str, float] = {}
        self.checkpoints: dict[str, float] = {}
        self.sources: dict[str, Callable[[], int]] = {}

    def describe(self) -> list[Metric]:
        """Names only, so that registering asks nobody."""
        return list(self._families(0.0, 0.0, empty=True))

    def collect(self) -> Iterator[Metric]:
        """All samples, as of now."""
        return self._families(time.monotonic(), time.time(), empty=False)

    def _families(self, now: float, unix_now: float, *, empty: bool) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            f"{NAMESPACE}_heartbeat_age_seconds", "Since the last heartbeat of a site", labels=["site"]
        )
        received = GaugeMetricFamily(
            f"{NAMESPACE}_heartbeat_received_timestamp_seconds",
            "When the last heartbeat of a site came, in Unix time",
            labels=["site"],
        )
        for site, at in () if empty else self.heartbeats.items():
            age.add_metric([site], now - at)
            received.add_metric([site], unix_now - (now - at))
        checkpoint = GaugeMetricFamily(
            f"{NAMESPACE}_checkpoint_age_seconds", "Since the last committed checkpoint", labels=["service"]
        )
        for service, at in () if empty else self.checkpoints.items():
            checkpoint.add_metric([service], now - at)
        yield from (age, received, checkpoint)
        for name, text in PULLED.items():
            source = None if empty else self.sources.get(name)
            yield CounterMetricFamily(f"{NAMESPACE}_{name}", text, value=source() if source else 0)
