"""Clients of a virtual machine follow its announcement: the original failover, with nothing switched for them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tunnelswitch_lab import teardown
from tunnelswitch_lab.bench.measuring import run_cells
from tunnelswitch_lab.bench.series import Cell
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.options import LabOptions
from tunnelswitch_lab.paper.options import system
from tunnelswitch_lab.redirection.openflow import packet_out
from tunnelswitch_lab.testbed import Testbed


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """A lab's name; what a failed run left is removed."""
    made = f"p{os.getpid()}"
    yield made
    await teardown.remove(Layout(made))


@pytest.mark.lab
async def test_clients_of_a_machine_follow_its_announcement(name: str, tmp_path: Path) -> None:
    bed = await Testbed.up(LabOptions(name))
    cell = Cell(system("original", "vm", 100.0, 20.0), "service-crash")
    await run_cells(bed, [cell], 1, tmp_path, lambda line: None)
    await bed.down()
    assert cell.problems == []
    [figures] = cell.figures
    assert (figures["verdict"], figures["active_site"]) == ("proof", "secondary")
    assert set(figures["client_packets_by_copy"]) == {"primary", "secondary"}


def test_a_frame_that_came_in_at_a_port_is_forwarded_as_any_other() -> None:
    message = packet_out(3, b"frame")
    assert message.hex() == "010d001d00000000" + "ffffffff00030008" + "00000008fffa0000" + b"frame".hex()
