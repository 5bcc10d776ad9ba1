"""`tunnelswitch-lab call`: a SIP call goes on over a crash of the one who answered it, and tshark sees the same."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from tunnelswitch_lab.calling import PACKETS, PICTURE, CallOptions, run_call
from tunnelswitch_lab.options import LabOptions

pytestmark = pytest.mark.lab


async def test_a_sip_call_goes_on(tmp_path: Path, new_name: Callable[[], str]) -> None:
    options = CallOptions(LabOptions(new_name()), "sipp", "service-crash", tmp_path)
    summary = await run_call(options, lambda line: None)
    assert summary["checks"] == []
    assert summary["hung_up"]
    assert [name[:3] for name in summary["gateway_tunnels"]] == ["t3-"]
    with (tmp_path / PACKETS).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == summary["packets"]
    outage_ms, jitter_ms = summary["outage_seconds"] * 1000, summary["jitter_max_seconds"] * 1000
    assert max(float(row["spacing_ms"]) for row in rows) - 20 == pytest.approx(outage_ms, abs=1e-3)
    assert max(float(row["jitter_ms"]) for row in rows) == pytest.approx(jitter_ms, abs=1e-3)
    assert (tmp_path / PICTURE).read_text(encoding="utf-8").startswith('<svg xmlns="http://www.w3.org/2000/svg"')
