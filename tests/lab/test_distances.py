"""Sites that are far apart: what a distance means, what is made of the figures, and a failover over a real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch_lab import netem, netns
from tunnelswitch_lab.distance.announcing import Announced, GarpBetweenSubnets
from tunnelswitch_lab.distance.cells import Cell, allowed_seconds, cells_of, costs, failover
from tunnelswitch_lab.distance.distances import DISTANCES, Distance, Line, chosen_distances
from tunnelswitch_lab.distance.report import markdown, problems, summarise
from tunnelswitch_lab.options import LabError, LabOptions
from tunnelswitch_lab.relay import Weather
from tunnelswitch_lab.testbed import Testbed
from tunnelswitch_lab.wan import weather_on

CONTINENTAL = DISTANCES[-1]
_NOBODY = 9  # no service listens there


def run(downtime: float | None, verdict: float | None, number: int = 1) -> dict[str, Any]:
    marks = {"verdict": verdict, "committed": None, "switched": None, "applied": None}
    return {
        "run": number,
        "downtime_seconds": downtime,
        "probe_downtime_seconds": downtime,
        "probe_first_packet_seconds": downtime,
        "marks": marks,
        "checks": [],
        "bytes_median": 125_000,
        "period_median_seconds": 0.1,
        "t1_bits_per_second": 1e7,
    }


def cell(*runs: dict[str, Any], workload: str = "process") -> Cell:
    return Cell(CONTINENTAL, workload, 25.0, "host-loss", list(runs))


@given(st.floats(0.001, 1.0), st.floats(0, 1), st.floats(0, 0.5))
def test_a_way_takes_half_the_round_trip_give_or_take_the_jitter(rtt: float, jitter: float, loss: float) -> None:
    weather = Line(jitter, loss).weather(Distance("x", rtt))
    assert weather is not None
    earliest, latest = weather.delay_seconds, weather.delay_seconds + weather.jitter_seconds
    assert earliest >= 0
    assert (earliest + latest) / 2 == pytest.approx(rtt / 2)
    assert latest - earliest == pytest.approx(jitter * rtt)
    assert (weather.loss, weather.in_order) == (loss, True)


def test_no_distance_is_no_weather() -> None:
    assert Line().weather(DISTANCES[0]) is None


def test_a_distance_is_a_name_or_milliseconds() -> None:
    assert [distance.name for distance in chosen_distances(())] == ["lan", "metro", "national", "continental"]
    assert chosen_distances(["metro", "35ms"]) == (DISTANCES[1], Distance("35ms", 0.035))


@pytest.mark.parametrize("text", ["lunar", "0ms", "-3ms", "1001ms", "nanms", "20"])
def test_an_unknown_distance_is_named_with_the_known_ones(text: str) -> None:
    with pytest.raises(LabError, match="is not known: lan, metro, national, continental, or a round-trip time"):
        chosen_distances([text])


def test_the_kernel_is_told_the_same_weather() -> None:
    weather = Line().weather(CONTINENTAL)
    assert weather is not None
    words = "delay 40000us 2000us loss 0.1% limit 1167 rate 100000000bit"
    assert netem.settings(weather) == words.split()
    with pytest.raises(ValueError, match="in_order"):
        netem.settings(replace(weather, in_order=False))


def test_every_fault_meets_every_distance_and_machines_are_checkpointed_at_two_intervals() -> None:
    names = [cell.name for cell in cells_of(DISTANCES[:2], ("process", "vm"))]
    assert names[:2] == ["lan process@25 host-loss", "metro process@25 host-loss"]
    assert len(names) == len(set(names)) == 10
    assert "metro vm@40 service-crash" in names


def test_downtime_may_be_detection_and_one_and_a_half_trips() -> None:
    assert allowed_seconds(CONTINENTAL, 0.14) == pytest.approx(0.29)
    row = failover(cell(run(0.28, 0.14), run(0.30, 0.14, 2), run(0.26, 0.14, 3)))
    assert (row["downtime_seconds"]["median"], row["holds"]) == (0.28, True)
    assert row["after_detection_trips"] == pytest.approx(1.75)
    assert failover(cell(run(0.30, 0.14)))["holds"] is False
    assert failover(cell())["holds"] is None


def test_what_is_not_as_it_must_be_is_said_and_a_router_that_stops_broadcasts_is_as_it_must_be() -> None:
    late, paused = failover(cell(run(0.30, 0.14))), failover(cell(run(0.9, 0.14), workload="vm"))
    assert problems([late], []) == ["continental process@25 host-loss: 300.0 ms without service, more than 290.0"]
    assert problems([paused], []) == []
    assert problems([failover(cell())], []) == ["continental process@25 host-loss: no run"]
    flat = Announced("metro", "garp", 3.0, "secondary", 0.2, 3.0)
    between = Announced("metro", GarpBetweenSubnets.name, 20.0, "secondary", None, 0.001)
    assert problems([], [flat, between]) == []
    assert "clients were not answered" in problems([], [replace(flat, downtime_seconds=None)])[0]
    assert "clients were answered" in problems([], [replace(between, downtime_seconds=0.1)])[0]
    assert problems([], [replace(between, problem="no lab")]) == ["metro garp between subnets: no lab"]
    assert "nothing was announced" in problems([], [replace(between, moved_to=None)])[0]


def test_costs_are_of_all_runs_at_one_interval() -> None:
    (row,) = costs([cell(run(0.28, 0.14)), cell(run(0.28, 0.14))])
    assert (row["runs"], row["bytes_median"], row["t1_bits_per_second"]) == (2, 125_000, 1e7)


def test_the_tables_tell_what_was_measured() -> None:
    seen = [Announced("continental", GarpBetweenSubnets.name, 20.0, "secondary", None, 0.04)]
    text = markdown(summarise((CONTINENTAL,), Line(), [cell(run(0.28, 0.14))], seen, {}))
    assert "| continental | 80 | process @25 | host-loss | 1 | 280.0 | 280.0 | 280.0 | 140.0 |" in text
    assert "| continental | process | 25 | 100.0 | - | - | 122.1 | 10.00 |" in text
    assert "| continental | garp between subnets | secondary | no answer in 20 s |" in text


@pytest.mark.lab
async def test_a_distance_delays_tunnels_both_ways(new_name: Callable[[], str], tmp_path: Path) -> None:
    """T1 between the copies and the underlay from the gateway, of which T2 and T3 are made: there and back again."""
    bed = await Testbed.up(LabOptions(new_name()), lambda step: None)
    layout = bed.layout
    primary, secondary = layout.servers
    ways = {
        "T1": (primary.service_namespace, secondary.replication_address),
        "T1 back": (secondary.service_namespace, primary.replication_address),
        "to the gateway": (primary.namespace, layout.gateway.underlay_address),
        "from the gateway": (layout.gateway.namespace, secondary.underlay_address),
    }
    try:
        async with weather_on(bed, Weather(delay_seconds=0.02), tmp_path / "relay.json") as shaping:
            during = {name: await _round_trip_seconds(*way) for name, way in ways.items()}
    finally:
        await bed.down()
    assert shaping.kind in ("netem", "relay")
    assert all(seconds >= 0.04 for seconds in during.values()), during


async def _round_trip_seconds(namespace: str, address: str) -> float:
    """The quickest of a few refused connections: what a distance adds at least, whatever the machine does meanwhile."""
    found = []
    for _ in range(3):
        with netns.entered(namespace):
            connection = netns.stream_socket()
        with connection, contextlib.suppress(ConnectionRefusedError):
            begun = time.monotonic()
            async with asyncio.timeout(20):
                await asyncio.get_running_loop().sock_connect(connection, (address, _NOBODY))
        found.append(time.monotonic() - begun)
    return min(found)


@pytest.mark.lab
@pytest.mark.timeout(120)
def test_a_failover_over_a_distance(new_name: Callable[[], str], tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("tunnelswitch-lab")
    command = [program, "wan", "--runs", "1", "--distance", "national", "--workload", "process", "--no-garp"]
    command += ["--seconds", "1", "--out", tmp_path, "--name", new_name()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    summary: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())
    (place,) = summary["distances"]
    assert (place["name"], place["shaping"]) == ("national", summary["shaping"])
    for row in place["failover"]:
        assert (row["runs"], row["problems"]) == (1, []), done.stdout + done.stderr
        # Whatever the machine does, the commit is a round trip, and the first answer has one way to come at least: a
        # client's packet may be there already when the promoted copy begins.
        assert row["phases_seconds"]["decide and commit"] > 0.018
        assert row["phases_seconds"]["first packet"] > 0.009
    assert (tmp_path / "table.md").read_text() in done.stdout
