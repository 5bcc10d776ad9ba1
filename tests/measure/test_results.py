"""What a series leaves behind, and the table that is printed."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console
from synthetic_run import SERVICE, Script, write_run

from tunnelswitch_lab import results
from tunnelswitch_lab.measure.environment import describe_environment
from tunnelswitch_lab.measure.runs import read_run
from tunnelswitch_lab.measure.summary import summarise_run, summarise_series


def test_a_series_leaves_its_files_and_a_table_that_fits(tmp_path: Path) -> None:
    results.prepare(tmp_path)
    scripts = [Script(number=1), Script(number=2, tunnels=[])]
    series = [read_run(write_run(results.run_directory(tmp_path, s.number), s), SERVICE) for s in scripts]
    summary = summarise_series(
        [summarise_run(files, SERVICE[1]) for files in series], describe_environment(), ["run 1: moved"]
    )
    results.write(tmp_path, summary, series[-1])
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == summary
    second = results.run_directory(tmp_path, 2)
    assert (tmp_path / "client.pcap").read_bytes() == (second / "client.pcap").read_bytes()
    assert len((tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()) == 10
    assert (tmp_path / "report.html").stat().st_size > 1000
    printed = io.StringIO()
    results.show(tmp_path, summary, Console(file=printed, width=80))
    text = printed.getvalue()
    assert "suspicion" in text
    assert "secondary" in text, "no column is cut"
    assert "false failover, run 1: moved" in text
    assert "run 2: client tunnels at the gateway: none; expected exactly one" in text


def test_an_earlier_series_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "runs" / "07").mkdir(parents=True)
    for name in ("summary.json", "report.html", "notes.txt"):
        (tmp_path / name).write_text("old", encoding="utf-8")
    results.prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
