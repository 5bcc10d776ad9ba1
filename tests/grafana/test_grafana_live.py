"""Every query of the dashboard, asked of a real Prometheus that scrapes real agents through a failover."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from dashboard_file import PROMETHEUS, RULES, Query, alerts, queries, rule_selectors

from tunnelswitch_lab import faults, netns, procs, teardown
from tunnelswitch_lab.layout import RTP_PORT, SERVICE_ADDRESS, Layout
from tunnelswitch_lab.options import LabOptions
from tunnelswitch_lab.testbed import Testbed

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

PROMETHEUS_ADDRESS = "10.9.0.3:9090"
FASTER = {"scrape_interval: 1s": "200ms", "scrape_timeout: 900ms": "200ms", "evaluation_interval: 5s": "500ms"}
_OURS = re.compile(r"tsw-(g(\d+))-wan")


@dataclass
class Live:
    """A Prometheus inside a lab's gateway, and when the last thing of interest had happened."""

    layout: Layout
    ended_at: float = 0.0

    async def ask(self, path: str, **parameters: object) -> Any:
        target = f"/api/v1/{path}?{urlencode(parameters)}"
        code, body = await netns.http_get(self.layout.gateway.namespace, PROMETHEUS_ADDRESS, target, 10.0)
        if code == 503:
            raise ConnectionError("Prometheus is still starting")
        answer = json.loads(body)
        assert (code, answer["status"]) == (200, "success"), answer
        return answer["data"]

    async def values(self, expression: str) -> dict[str, float]:
        """Value by legend-like text of the labels, now."""
        result = (await self.ask("query", query=expression))["result"]
        return {",".join(sorted(series["metric"].values())): float(series["value"][1]) for series in result}

    async def run(self, query: Query) -> list[float]:
        """Every value that the panel would show."""
        if query.is_instant:
            result = (await self.ask("query", query=query.expression, time=self.ended_at))["result"]
            return [float(series["value"][1]) for series in result]
        span = {"start": self.ended_at - 10, "end": self.ended_at, "step": 0.5}
        result = (await self.ask("query_range", query=query.expression, **span))["result"]
        return [float(value) for series in result for _, value in series["values"]]

    async def wait(self, expression: str, seconds: float) -> None:
        """Until the expression has a result."""

        async def has_result() -> bool:
            try:
                return bool(await self.values(expression))
            except (OSError, TimeoutError):
                return False

        await netns.wait_for(has_result, expression, seconds, poll_seconds=0.2)


def remove(name: str) -> None:
    asyncio.run(teardown.remove(Layout(name)))


def sweep() -> None:
    """Remove what a test run left that did not live to do it itself."""
    for namespace in netns.existing("tsw-g"):
        found = _OURS.fullmatch(namespace)
        if found and procs.start_ticks(int(found[2])) is None:
            remove(found[1])


def configure(directory: Path) -> Path:
    """The shipped configuration, only faster."""
    text = PROMETHEUS.read_text(encoding="utf-8")
    for slow, fast in FASTER.items():
        assert slow in text
        text = text.replace(slow, f"{slow.partition(':')[0]}: {fast}")
    (directory / RULES.name).write_text(RULES.read_text(encoding="utf-8"), encoding="utf-8")
    made = directory / PROMETHEUS.name
    made.write_text(text, encoding="utf-8")
    return made


async def live_through_a_crash(name: str, directory: Path) -> Live:
    """A lab with a call through it whose machine crashes, watched by Prometheus all the time. Its output waits, but for
    the call, so that everything that can be shown is."""
    options = LabOptions(name, interval_seconds=0.05, workload="vm", checkpoint_interval_ms=100.0, buffering="realtime")
    bed = await Testbed.up(options)
    live = Live(bed.layout)
    try:
        await bed.start_service()
        await bed.start_agents()
        prometheus = ["prometheus", f"--config.file={configure(directory)}", f"--storage.tsdb.path={directory}/data"]
        bed.spawn("gateway", [*prometheus, f"--web.listen-address={PROMETHEUS_ADDRESS}"], name="prometheus")
        caller = [sys.executable, "-m", "tunnelswitch_lab.workload.rtp_client"]
        whom = ["--host", SERVICE_ADDRESS, "--port", str(RTP_PORT), "--out", str(directory / "rtp.trace")]
        whom += ["--interval-ms", "5"]  # a telephone's 20 ms can be too coarse to see this failover
        bed.spawn("client", [*caller, *whom], name="rtp-client")
        await live.wait("min by (group) (tunnelswitch_protected) == 1", 30)
        await live.wait('changes(tunnelswitch_checkpoint_pause_seconds_count{reporter="primary"}[2s]) > 0', 30)
        await asyncio.sleep(3)  # something to take a rate over, before anything happens
        await bed.inject(faults.find("service-crash"))
        await live.wait(
            "tunnelswitch_last_failover_phase_seconds and on () tunnelswitch_failover_downtime_seconds > 0", 30
        )
        await live.wait('ALERTS{alertname="TunnelswitchUnprotected"}', 30)
        await asyncio.sleep(1)
        live.ended_at = time.time()
    finally:
        await bed.close()
    return live


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    sweep()
    name = f"g{os.getpid()}"
    try:
        yield asyncio.run(live_through_a_crash(name, tmp_path_factory.mktemp("prometheus")))
    finally:
        remove(name)


def complaints(exposition: bytes) -> str:
    """What promtool has to say about a page of metrics."""
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=exposition, capture_output=True, timeout=30, check=False)
    assert done.returncode in (0, 3), done
    return (done.stdout + done.stderr).decode()


async def test_every_query_of_every_panel_has_data(live: Live) -> None:
    empty = []
    for query in queries():
        values = await live.run(query)
        if not any(math.isfinite(value) for value in values):
            empty.append(f"{query.panel}: {query.expression}")
    assert not empty, "\n".join(empty)


async def test_what_is_shown_is_what_happened(live: Live) -> None:
    assert await live.values('tunnelswitch_active_site{process="switcher"} == 1') == {
        "10.9.0.3:9102,gateway,lab,secondary,switcher,tunnelswitch,tunnelswitch_active_site,voip": 1
    }
    assert await live.values("sum by (reporter, role) (tunnelswitch_service_role == 1)") == {
        "primary,stopped": 1,
        "active,secondary": 1,
    }
    assert await live.values("sum by (reporter) (tunnelswitch_gate_open)") == {"primary": 0, "secondary": 1}
    assert await live.values('sum by (reason) (increase(tunnelswitch_switches_total{process="switcher"}[1m])) > 0')
    [downtime] = (await live.values("max(tunnelswitch_failover_downtime_seconds)")).values()
    phases = await live.values("sum by (phase) (tunnelswitch_last_failover_phase_seconds)")
    assert set(phases) == {"commit", "switch", "apply", "promote"}, "a proof needs no silence"
    assert 0 < phases["commit"] < 30
    assert 0 < downtime < 30


async def test_scraping_and_rules_are_healthy(live: Live) -> None:

    async def all_up() -> bool:  # one that was asked while the machine stood still is up again at the next time
        return [target["health"] for target in (await live.ask("targets"))["activeTargets"]] == ["up"] * 4

    await netns.wait_for(all_up, "every target up", 20, poll_seconds=0.2)
    rules = [rule for group in (await live.ask("rules"))["groups"] for rule in group["rules"]]
    assert sorted(rule["name"] for rule in rules) == sorted(alerts())
    assert {rule["health"] for rule in rules} == {"ok"}
    states = {rule["name"]: rule["state"] for rule in rules}
    assert states["TunnelswitchUnprotected"] in ("pending", "firing"), "nobody started a new standby"
    calm = ("TunnelswitchAgentDown", "TunnelswitchQuorumAtRisk", "TunnelswitchClientTunnelsWrong")
    assert "firing" not in {states[name] for name in calm}
    for selector in sorted(rule_selectors()):
        assert await live.values(selector), f"the rules ask for {selector}, which nobody has"


async def test_promtool_finds_the_metrics_well_made(live: Live) -> None:
    layout = live.layout
    endpoints = [(site, site.agent_metrics) for site in layout.sites]
    for site, endpoint in [*endpoints, (layout.gateway, layout.gateway.switcher_metrics)]:
        code, body = await netns.http_get(site.namespace, endpoint, "/metrics")
        assert code == 200
        assert await asyncio.to_thread(complaints, body) == ""
