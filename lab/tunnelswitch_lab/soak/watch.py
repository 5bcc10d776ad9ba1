"""What the agents' own metrics say during a soak, once a second, and what it comes to."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import Any

from tunnelswitch_lab import netns
from tunnelswitch_lab.layout import Layout, Site

LOOK_SECONDS = 1.0
ROWS_MAX = 120  # of windows over time in the summary
_ANSWER_SECONDS = 5.0
_PREFIX = "tunnelswitch_"
_SAMPLE = re.compile(rf"^{_PREFIX}(\w+)(?:\{{(.*)\}})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Labels = tuple[tuple[str, str], ...]
Samples = dict[str, dict[Labels, float]]


def parse(text: str) -> Samples:
    """Our samples of the text format, by name without prefix and labels."""
    samples: Samples = {}
    for name, labels, value in _SAMPLE.findall(text):
        samples.setdefault(name, {})[tuple(_LABEL.findall(labels))] = float(value)
    return samples


@dataclass
class Watch:
    """Looks at every process of a lab until it is cancelled."""

    layout: Layout
    first: dict[str, Samples] = field(default_factory=dict)
    last: dict[str, Samples] = field(default_factory=dict)
    windows: list[dict[str, Any]] = field(default_factory=list)
    lost_ratio_max: dict[str, float] = field(default_factory=dict)
    window_max: dict[str, float] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)
    active_sites: list[str] = field(default_factory=list)
    self_fenced: int = 0
    unanswered_looks: int = 0

    def places(self) -> dict[str, tuple[Site, str]]:
        """Where each process serves its metrics."""
        found = {site.name: (site, site.agent_metrics) for site in self.layout.sites}
        gateway = self.layout.gateway
        return found | {"switcher": (gateway, gateway.switcher_metrics)}

    async def run(self) -> None:
        """Look until cancelled."""
        began = time.monotonic()
        while True:
            await self.look(time.monotonic() - began)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self, at_seconds: float) -> None:
        """Ask everybody once."""
        row: dict[str, Any] = {"at_seconds": round(at_seconds, 1)}
        for name, (site, address) in self.places().items():
            try:
                _, body = await netns.http_get(site.namespace, address, "/metrics", _ANSWER_SECONDS)
            except (OSError, TimeoutError):
                self.unanswered_looks += 1
                continue
            self.note(name, parse(body.decode()), row)
        self.windows.append(row)

    def note(self, name: str, samples: Samples, row: dict[str, Any]) -> None:
        """Take what one process answered; the windows go into `row`."""
        self.first.setdefault(name, samples)
        self.last[name] = samples
        for labels, seconds in samples.get("detection_window_seconds", {}).items():
            pair = f"{name} of {dict(labels)['site']}"
            row[pair] = round(seconds, 4)
            self.window_max[pair] = max(seconds, self.window_max.get(pair, 0.0))
        row["false_silences"] = row.get("false_silences", 0) + sum(self.grown(name, "false_silences_total").values())
        for labels, ratio in samples.get("heartbeats_lost_ratio", {}).items():
            pair = f"{name} of {dict(labels)['site']}"
            self.lost_ratio_max[pair] = max(ratio, self.lost_ratio_max.get(pair, 0.0))
        self.self_fenced += any(samples.get("self_fenced", {}).values())
        for epoch in samples.get("epoch", {}).values():
            if int(epoch) not in self.epochs:
                self.epochs.append(int(epoch))
        for labels, is_active in samples.get("active_site", {}).items():
            site = dict(labels)["site"]
            if is_active and site not in self.active_sites:
                self.active_sites.append(site)

    # ------------------------------------------------------------------ what it came to

    def grown(self, name: str, metric: str) -> dict[str, float]:
        """By how much each series of a counter has grown, by the values of its labels."""
        before = self.first.get(name, {}).get(metric, {})
        after = self.last.get(name, {}).get(metric, {})
        return {", ".join(value for _, value in labels): new - before.get(labels, 0.0) for labels, new in after.items()}

    def total(self, metric: str) -> dict[str, float]:
        """The same, summed, by process."""
        return {name: sum(self.grown(name, metric).values()) for name in self.last if metric in self.last[name]}

    def by_pair(self, metric: str, **wanted: str) -> dict[str, float]:
        """The last values of a metric about sites, by observer and site."""
        return {
            f"{name} of {dict(labels)['site']}": round(value, 6)
            for name, samples in self.last.items()
            for labels, value in samples.get(metric, {}).items()
            if wanted.items() <= dict(labels).items()
        }

    @property
    def failovers(self) -> int:
        """Moves that anybody saw. Also one between two looks: it is an epoch."""
        moves = max(self.total("switches_total").values(), default=0.0)
        return max(int(moves), len(self.epochs) - 1, len(self.active_sites) - 1)

    def summary(self) -> dict[str, Any]:
        """Everything, for summary.json."""
        every = max(1, -(-len(self.windows) // ROWS_MAX))
        ratios = {since: self.by_pair("heartbeat_age_worst_ratio", since=since) for since in ("start", "minute")}
        commits = self.grown("switcher", "commits_total")
        return {
            "failovers": self.failovers,
            "epochs": self.epochs,
            "active_sites": self.active_sites,
            "commits": {name: int(value) for name, value in commits.items() if value},
            "self_fenced_looks": self.self_fenced,
            "window_seconds_max": {pair: round(value, 4) for pair, value in self.window_max.items()},
            "window_seconds_wanted": self.by_pair("detection_window_wanted_seconds"),
            "heartbeat_age_worst_ratio": ratios,
            "heartbeats_lost_ratio_max": {pair: round(value, 4) for pair, value in self.lost_ratio_max.items()},
            "false_silences": {
                name: self.grown(name, "false_silences_total") for name in self.last if name != "switcher"
            },
            "false_silences_expected_per_day": self.by_pair("false_silences_expected_per_day"),
            "false_silences_budget_per_day": self.last.get("gateway", {})
            .get("false_silences_budget_per_day", {})
            .get(()),
            "bfd_downs": {name: self.grown(name, "path_downs_total") for name in self.last if name != "switcher"},
            "nats_reconnects": self.total("bus_connections_total"),
            "late_loops": self.total("loop_lateness_seconds_count"),
            "alarms": self.total("alarms_total").get("switcher"),
            "refusals": self.total("refusals_total").get("switcher"),
            "looks": len(self.windows),
            "unanswered_looks": self.unanswered_looks,
            "windows_over_time": self.windows[::every],
        }
