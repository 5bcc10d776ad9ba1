"""The report renders with and without what others have left, says what was measured, and every link leads somewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from tunnelswitch_lab.paper import others
from tunnelswitch_lab.paper.options import PaperOptions
from tunnelswitch_lab.paper.report import write_report


class Links(HTMLParser):
    """Every address that the page names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("href", "src")]


def page(options: PaperOptions) -> str:
    text = write_report(options).read_text(encoding="utf-8")
    links = Links(text).found
    assert [link for link in links if not (options.out / link).exists()] == []
    assert not re.search(r"https?://(?!www\.w3\.org)", text), "no external resources"
    return text


def test_everything_that_was_measured_is_on_the_page(options: PaperOptions) -> None:
    text = page(options)
    assert text.count("<svg ") == 4
    assert "14 of 16" in text
    assert "outage 131.0 ms" in text
    assert re.search(r"original, 40(\.0)? ms:\s+1 run did not count: the &lt;other&gt; copy never answered", text)
    assert re.search(r"host-loss, vm:\s+1 run did not count: never moved", text)
    assert "Not measured yet" not in text
    assert "Beside its peers" not in text
    summary = json.loads((options.out / "summary.json").read_text(encoding="utf-8"))
    assert summary["agreement"] == {"agree": 14, "of": 16}
    assert len(summary["fig5"]["points"]) == 12
    assert list(summary["phases"]["rows"][0]["phases_seconds"]) == [
        "detect",
        "decide",
        "commit",
        "switch",
        "promote",
        "first packet",
    ]


def test_what_others_left_is_taken_in(beside: PaperOptions) -> None:
    text = page(beside)
    assert "Beside its peers" in text
    assert "2026-11-26T12:00:00Z" in text
    assert "<td>31.2</td>" in text
    assert "How it grows" in text
    assert "../bench/summary.json" in Links(text).found


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    text = page(PaperOptions(tmp_path))
    assert text.count("Not measured yet") == 3
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["fig4"] is None


def test_any_summary_becomes_tables() -> None:
    content = {
        "cells": [
            {"system": "a", "gap_seconds": {"median": 0.0312, "p95": None}, "problems": ["one", "two"], "good": True},
            {"system": "b" * 200, "gap_seconds": {"median": 0.5}, "values": [1, 2]},
        ],
        "long_seconds": {"soak": 3600.0, "start": 2.5},
        "by": {"x": {"n": 1}, "y": {"n": 2}},
        "order": "interleaved",
        "environment": {"cores": 2},
        "nothing": [],
    }
    cells, times, by = others.tables(content)
    assert cells.heads == ["system", "gap median, ms", "problems", "good"]
    assert cells.rows[0] == ["a", "31.2", "one; two", "yes"]
    assert len(cells.rows[1][0]) < 100
    assert (times.title, times.rows) == ("long seconds", [["soak", "3600"], ["start", "2.5"]])
    assert by.rows == [["x", "1"], ["y", "2"]]


def test_a_long_table_says_what_it_leaves_out() -> None:
    [table] = others.tables({"cells": [{f"c{n}": n for n in range(20)} for _ in range(70)]})
    assert (len(table.rows), len(table.heads)) == (60, 14)
    assert table.left_out == "10 more rows and 6 more columns"


def test_a_damaged_summary_is_as_none(beside: PaperOptions) -> None:
    (beside.out.parent / "bench" / "summary.json").write_text("{", encoding="utf-8")
    (beside.out.parent / "growth" / "summary.json").write_text("[]", encoding="utf-8")
    assert others.found(beside.out) == []
