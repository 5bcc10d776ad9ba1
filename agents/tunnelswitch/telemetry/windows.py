"""How long each site may be silent here, and what that was learnt from: read from its owner when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tunnelswitch.core.patience import Limits, Patience
from tunnelswitch.telemetry.families import NAMESPACE

Read = Callable[[Patience], float]

GAUGES: dict[str, tuple[str, Read]] = {
    "detection_window_seconds": ("How long a site may be silent", lambda one: one.window_seconds),
    "detection_window_wanted_seconds": (
        "What the measured gaps ask for, also above the ceiling",
        lambda one: one.measured_seconds,
    ),
    "heartbeats_lost_ratio": (
        "Heartbeats that did not come or came too late to count, of the last minute's",
        lambda one: one.lost_ratio,
    ),
    "false_silences_expected_per_day": (
        "How often the window will be exceeded by a live site, as measured",
        lambda one: one.false_silences_per_day_expected,
    ),
}
WORST: dict[str, Read] = {"start": lambda one: one.worst_ratio, "minute": lambda one: one.worst_ratio_lately}


class Windows(Collector):
    """Of a process that listens for silence; the others have none."""

    def __init__(self, limits: Limits) -> None:
        self.source: Callable[[], Mapping[str, Patience]] = dict
        self._limits = limits

    def describe(self) -> list[Metric]:
        """Names only, so that registering asks nobody."""
        return list(self._families({}))

    def collect(self) -> Iterator[Metric]:
        """All samples, as of now."""
        return self._families(self.source())

    def _families(self, found: Mapping[str, Patience]) -> Iterator[Metric]:
        for name, (text, read) in GAUGES.items():
            gauge = GaugeMetricFamily(f"{NAMESPACE}_{name}", text, labels=["site"])
            for site, patience in found.items():
                gauge.add_metric([site], read(patience))
            yield gauge
        worst = GaugeMetricFamily(
            f"{NAMESPACE}_heartbeat_age_worst_ratio",
            "Worst age of a heartbeat, as a part of the window that it had",
            labels=["site", "since"],
        )
        false = CounterMetricFamily(
            f"{NAMESPACE}_false_silences", "Times that a live site was taken for silent", labels=["site"]
        )
        for site, patience in found.items():
            for since, read in WORST.items():
                worst.add_metric([site, since], read(patience))
            false.add_metric([site], patience.false_silences)
        yield from (worst, false)
        for name, text, value in (
            ("detection_ceiling_seconds", "No window widens beyond this", self._limits.ceiling_seconds),
            ("false_silences_budget_per_day", "What windows are made for", self._limits.false_silences_per_day),
        ):
            yield GaugeMetricFamily(f"{NAMESPACE}_{name}", text, value=value)
