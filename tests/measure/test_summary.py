"""A run's files to figures, checks and the report; tshark reads the same capture."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import SERVICE, Script, write_run

from tunnelswitch_lab.measure import charts
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.measure.load import LoadMeter
from tunnelswitch_lab.measure.report import headline, write_report
from tunnelswitch_lab.measure.runs import RunFacts, RunFiles, read_run
from tunnelswitch_lab.measure.summary import MARKS, MEDIAN_KEYS, medians, summarise_run, summarise_series
from tunnelswitch_lab.measure.svg import Scale
from tunnelswitch_lab.measure.tshark import rtp_streams

CONTRACT = {
    "fault",
    "verdict",
    "downtime_seconds",
    "max_gap_seconds",
    "lost_packets",
    "jitter_max_seconds",
    "marks",
    "epoch",
    "active_site",
    "gateway_tunnels",
    "state_rollback_packets",
}


def measure(directory: Path, script: Script) -> tuple[RunFiles, dict[str, Any]]:
    files = read_run(write_run(directory, script), SERVICE)
    return files, summarise_run(files, SERVICE[1])


def test_figures_of_a_failover(tmp_path: Path) -> None:
    _, figures = measure(tmp_path, Script())
    assert set(figures) >= CONTRACT
    assert figures["checks"] == []
    assert (figures["verdict"], figures["epoch"], figures["active_site"]) == ("suspicion", 2, "secondary")
    assert figures["gateway_tunnels"] == ["t3-pbx"]
    # The call lost the packets of 2.02, 2.04 and 2.06; the next one came at 2.08.
    assert figures["lost_packets"] == 3
    assert figures["downtime_seconds"] == pytest.approx(0.060, abs=0.003)
    assert figures["max_gap_seconds"] == pytest.approx(0.080, abs=0.003)
    assert figures["probe_downtime_seconds"] == pytest.approx(0.054, abs=0.0015)
    assert figures["probe_lost"] == 54
    assert figures["state_rollback_packets"] == 1
    assert figures["overlap_packets"] == 0
    assert set(figures["marks"]) == set(MARKS)
    assert figures["marks"]["fault"] == 0
    assert figures["marks"]["applied"] == pytest.approx(0.052, abs=1e-4)
    assert figures["marks"]["first_packet"] == pytest.approx(0.0754, abs=0.003)
    assert sum(figures["client_packets_by_copy"].values()) == 197


def test_tshark_reads_the_same_from_the_capture(tmp_path: Path) -> None:
    _, figures = measure(tmp_path, Script())
    [oracle] = rtp_streams(tmp_path / "client.pcap", SERVICE[1])
    assert oracle.lost == figures["lost_packets"]
    assert oracle.max_delta_seconds == pytest.approx(figures["max_gap_seconds"], abs=2e-6)
    assert oracle.max_jitter_seconds == pytest.approx(figures["jitter_max_seconds"], abs=2e-6)


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (Script(tunnels=["t2-pbx", "t3-pbx"]), "expected exactly one"),
        (Script(tunnels=[]), "client tunnels at the gateway: none"),
        (Script(late_answers=2), "answers came from a copy that had been replaced"),
        (Script(reported_downtime=0.200), "more than 20 ms apart"),
        (Script(reported_downtime=0.200, flow="udp 192.168.77.10:5004 > 1.1.1.1:1"), "downtime of the call"),
        (Script(reason="proof"), "verdict proof, expected suspicion"),
        (Script(back_at=9.0), "no answer after the fault"),
        (Script(silent_again_at=2.4), "no answer in the last 1.6 s"),
    ],
)
def test_what_is_wrong_is_said(script: Script, complaint: str, tmp_path: Path) -> None:
    _, figures = measure(tmp_path, script)
    assert any(complaint in check for check in figures["checks"]), figures["checks"]


def test_medians_leave_out_what_is_absent(tmp_path: Path) -> None:
    runs = [measure(tmp_path / str(n), Script(number=n, back_at=2.041 + n / 100))[1] for n in (1, 2, 3)]
    for run, rollback in zip(runs, (None, 4, 8), strict=True):
        run["state_rollback_packets"] = rollback
    middle = medians(runs)
    assert middle["state_rollback_packets"] == 6
    assert middle["probe_downtime_seconds"] == runs[1]["probe_downtime_seconds"]
    assert set(middle) == {*MEDIAN_KEYS, "marks"}
    assert medians([])["marks"]["fault"] is None


class Page(HTMLParser):
    """Counts tags and checks that they are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def write_page(tmp_path: Path, script: Script, runs: int = 1) -> tuple[str, Page]:
    series = [measure(tmp_path / str(n), script) for n in range(runs)]
    summary = summarise_series([figures for _, figures in series], describe_environment())
    write_report(tmp_path / "report.html", summary, series[-1][0])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    return text, page


def test_report_is_one_page_that_needs_nothing_else(tmp_path: Path) -> None:
    text, page = write_page(tmp_path, Script(), runs=2)
    assert page.seen.count("svg") == 3
    assert page.links == []
    assert "url(" not in text
    assert "http" not in re.sub(r"https?://www\.w3\.org\S*", "", text)
    assert "The client was without service for 54.0 ms (median of 2 runs), then secondary served it." in text
    assert "Every check passed." in text


def test_report_of_a_failed_run_says_what_is_wrong(tmp_path: Path) -> None:
    text, _ = write_page(tmp_path, Script(tunnels=[], back_at=9.0))
    assert "Not every check passed." in text
    assert "run 1: the client got no answer after the fault" in text


def test_names_in_the_report_are_escaped(tmp_path: Path) -> None:
    text, _ = write_page(tmp_path, Script(tunnels=["<script>alert(1)</script>"]))
    assert "<script" not in text


def test_headline_without_a_failover() -> None:
    run = {"marks": {"first_packet": None}, "active_site": "primary"}
    assert headline({"runs": [run], "medians": {"probe_downtime_seconds": 0.001}}) == (
        "The client stayed with primary; its longest silence was 1.0 ms."
    )


def test_phases_add_up_to_the_first_packet() -> None:
    marks = {"path_down": 0.03, "bus_silent": 0.02, "verdict": 0.034, "committed": 0.04, "first_packet": 0.06}
    parts = charts.phases(marks)
    assert [name for name, _ in parts] == ["detect", "decide", "commit", "first packet"]
    assert sum(seconds for _, seconds in parts) == pytest.approx(0.06)
    crash = charts.phases({"verdict": 0.004, "committed": 0.007, "applied": 0.02, "first_packet": 0.018})
    assert sum(seconds for _, seconds in crash) == pytest.approx(0.018), "a packet may come before the confirmation"
    assert charts.phases({"verdict": 0.1}) == []


def test_ticks_are_round_and_inside() -> None:
    assert Scale(0, 97, 0, 1).ticks(5) == [0, 20, 40, 60, 80]
    assert Scale(-1, 2, 0, 1).ticks(6) == [-1, -0.5, 0, 0.5, 1, 1.5, 2]
    assert Scale(3, 3, 0, 1).ticks(5) == [3]


def test_facts_survive_the_file(tmp_path: Path) -> None:
    write_run(tmp_path, Script(number=7))
    assert RunFacts.load(tmp_path).number == 7


def test_environment_names_machine_and_versions() -> None:
    environment = describe_environment()
    assert environment["kernel"]
    assert environment["cores"] >= 1
    assert {"tunnelswitch", "python", "openvswitch", "qemu", "nats_server"} <= set(environment["versions"])


def test_load_of_a_process_that_is_gone_is_left_out() -> None:
    import os

    meter = LoadMeter({"me": os.getpid(), "nobody": 2**22 - 1})
    load = meter.read()
    assert set(load) == {"me"}
    assert load["me"]["resident_mib"] > 1
