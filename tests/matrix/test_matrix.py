"""The catalogue as data, and its most telling faults on real parts, with one wrong expectation among them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import teardown
from tunnelswitch_lab.experiment import CheckFailedError
from tunnelswitch_lab.faults import FAULTS, Verdict
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.matrix.cases import MOVES, STAYS, Clients, Expected
from tunnelswitch_lab.matrix.catalogue import CASES, SHORT, chosen
from tunnelswitch_lab.matrix.running import MatrixOptions, run_matrix
from tunnelswitch_lab.options import LabError, LabOptions


def test_every_process_of_every_site_is_killed_and_hung() -> None:
    kinds = {f"{kind}-{site}" for kind in ("agent", "nats", "ovsdb", "vswitchd") for site in names.SITES}
    kinds |= {"switcher-gateway", "service-secondary"}
    assert {f"{process}-{how}" for process in kinds for how in ("killed", "hangs")} <= CASES.keys()
    assert {"service-crash", "service-primary-hangs"} <= CASES.keys()  # the active copy is never started again
    assert FAULTS.keys() <= CASES.keys()


def test_every_expectation_is_of_one_piece() -> None:
    for case in CASES.values():
        moves = case.expected.verdict is not Verdict.NONE
        assert case.expected.copies == (MOVES if moves else STAYS), case.name
        assert not (moves and case.expected.clients is Clients.UNAWARE), case.name
        assert case.does, case.name


def test_faults_are_chosen_by_name() -> None:
    assert [case.name for case in chosen(["nats-crash", "host-loss"])] == ["host-loss", "nats-crash"]
    assert chosen([]) == list(CASES.values())
    with pytest.raises(LabError, match="no fault 'fire': tunnelswitch-lab faults --list"):
        chosen(["host-loss", "fire"])


async def test_an_unwritable_directory_is_said_before_anything_is_built(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(LabError, match="cannot be written"):
        await run_matrix(MatrixOptions(blocked / "out", chosen([])))


@pytest.mark.lab
@pytest.mark.timeout(240)
async def test_the_most_telling_faults_end_as_they_must_and_a_wrong_expectation_fails(tmp_path: Path) -> None:
    wrong = replace(CASES["nats-crash"], expected=Expected(Verdict.PROOF, MOVES, Clients.INTERRUPTED))
    lab = LabOptions(f"m{os.getpid()}")
    said: list[str] = []
    with pytest.raises(CheckFailedError, match="nats-crash: answers came from primary; expected primary, then"):
        await run_matrix(MatrixOptions(tmp_path, [*chosen(SHORT), wrong], lab), said.append)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {fault["name"]: fault["problems"] for fault in summary["faults"] if fault["name"] != wrong.name} == {
        name: [] for name in SHORT
    }
    assert (summary["passed"], summary["failed"]) == (len(SHORT), 1)
    kept = tmp_path / "failed" / wrong.name
    assert all((kept / name).stat().st_size for name in ("client.pcap", "events.jsonl", "logs/agent-primary.log"))
    assert [place.name for place in (tmp_path / "failed").iterdir()] == [wrong.name]
    assert (tmp_path / "table.md").read_text().count("\n") == 2 + len(SHORT) + 1
    assert not teardown.leftovers(Layout(lab.name))
