"""What this site last told the others, and whom of the voters it hears: worked out when somebody asks.

The heartbeat is the only word on a copy's role, protection and gate that everybody acts on, so that is what is shown.
Keeping it is one assignment a beat. Reads clocks at a scrape only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tunnelswitch.core.facts import GroupRecord, Heartbeat, Protection
from tunnelswitch.core.quorum import quorum
from tunnelswitch.core.topology import Group
from tunnelswitch.telemetry.families import NAMESPACE

HEARD_SECONDS_MIN = 1.0  # a shorter silence is the detector's business, not the operator's
ROLES = ("active", "standby", "stopped")
STATES = (*Protection, "degraded")


class Spoken(Collector):
    """The site's own last heartbeat, and the voters of its groups.

    Args:
        speaker: the site if this process sends its heartbeats, else empty.
        records: by group, those in force; their voters count, not the file's.
        groups: those in which the site has a part.
        heartbeats: when each site was last heard, by CLOCK_MONOTONIC.
        window_seconds: after what silence detection takes a site for gone.
    """

    def __init__(
        self,
        speaker: str,
        groups: tuple[Group, ...],
        records: Mapping[str, GroupRecord],
        heartbeats: Mapping[str, float],
        window_seconds: float,
    ) -> None:
        self.last: Heartbeat | None = None
        self._speaker = speaker
        self._groups = groups
        self._records = records
        self._heartbeats = heartbeats
        self._heard_seconds = max(HEARD_SECONDS_MIN, window_seconds)

    def describe(self) -> list[Metric]:
        """Names only, so that registering asks nobody."""
        return [*self._services(None), *self._voters((), 0.0)]

    def collect(self) -> Iterator[Metric]:
        """All samples, as of now."""
        yield from self._services(self.last)
        yield from self._voters(self._groups, time.monotonic())

    def _services(self, beat: Heartbeat | None) -> tuple[Metric, ...]:
        state = _gauge("service_state", "1 at the protection of the copy here", "service", "state")
        sequence = _gauge("checkpoint_sequence", "Number of the last committed checkpoint here", "service")
        progress = _gauge("sync_progress_ratio", "How much of a copy under way the standby has", "service")
        role = _gauge("service_role", "1 at the role of the copy here", "service", "role")
        gate = _gauge("gate_open", "1 while clients can reach the copy here", "service")
        fenced = _gauge("self_fenced", "1 while this site keeps its copy from clients by itself", "service")
        for status in beat.services if beat else ():
            for word in STATES:
                state.add_metric([status.service, word], status.state == word)
            sequence.add_metric([status.service], status.checkpoint_sequence)
            progress.add_metric([status.service], status.progress)
            for name in ROLES:
                role.add_metric([status.service, name], status.role == name)
            gate.add_metric([status.service], status.gate_open)
            fenced.add_metric([status.service], status.self_fenced)
        return (state, sequence, progress, role, gate, fenced)

    def _voters(self, groups: tuple[Group, ...], now: float) -> tuple[Metric, ...]:
        voters = _gauge("voters", "Voters of the group", "group")
        needed = _gauge("voters_needed", "How many voters a verdict on silence takes", "group")
        heard = _gauge("voters_heard", "Voters whose heartbeats come in here, this site's own included", "group")
        for group in groups:
            record = self._records.get(group.name)
            names = record.voters if record else group.voters
            voters.add_metric([group.name], len(names))
            needed.add_metric([group.name], quorum(len(names)))
            heard.add_metric([group.name], sum(self._hears(voter, now) for voter in names))
        return (voters, needed, heard)

    def _hears(self, voter: str, now: float) -> bool:
        at = self._heartbeats.get(voter)
        return voter == self._speaker or (at is not None and now - at <= self._heard_seconds)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{NAMESPACE}_{name}", text, labels=labels)
