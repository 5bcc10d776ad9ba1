"""What drivers know of protected machines, read from them when somebody asks: memory, and output held back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tunnelswitch.telemetry.families import NAMESPACE

GAUGES = {
    "output_held_packets": "Frames of a machine that wait for their checkpoint",
    "output_held_bytes": "Their size",
    "output_oldest_seconds": "How long the first of them has been waiting",
    "output_unheld": "1 while the devices through which output is held are not in our hands",
    "machine_resident_bytes": "Memory that the machine's QEMU holds",
    "machine_resident_limit_bytes": "What it must not exceed, as configured; 0: no limit",
}
COUNTERS = {
    "output_passed": "Frames that left at once, because nobody could take over",
    "output_released": "Frames that left after they had waited",
    "output_dropped": "Frames that did not fit: into the limit, the kernel's buffer, or the bridge's",
    "output_discarded": "Frames that never left, because their machine ended",
}


class Machines(Collector):
    """Of one agent; `sources` holds a function per service."""

    def __init__(self) -> None:
        self.sources: dict[str, Callable[[], Mapping[str, float]]] = {}

    def describe(self) -> list[Metric]:
        """Names only, so that registering asks nobody."""
        return list(self._families({}))

    def collect(self) -> Iterator[Metric]:
        """All samples, as of now."""
        return self._families({service: source() for service, source in self.sources.items()})

    def _families(self, found: Mapping[str, Mapping[str, float]]) -> Iterator[Metric]:
        families: list[GaugeMetricFamily | CounterMetricFamily] = [
            GaugeMetricFamily(f"{NAMESPACE}_{name}", text, labels=["service"]) for name, text in GAUGES.items()
        ]
        families += [
            CounterMetricFamily(f"{NAMESPACE}_{name}", text, labels=["service"]) for name, text in COUNTERS.items()
        ]
        for family, name in zip(families, (*GAUGES, *COUNTERS), strict=True):
            for service, figures in found.items():
                if name in figures:
                    family.add_metric([service], figures[name])
            yield family
