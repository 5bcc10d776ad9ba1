"""What a standby holds is the machine of the last checkpoint: every page of it, and the processor with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines import Machines, promote, until
from self_checking import BAD, GOOD, boot_arguments

from tunnelswitch.core.events import Promoted
from tunnelswitch.core.facts import CheckpointSeen, Protection

pytestmark = pytest.mark.lab


async def test_a_standby_finds_its_memory_as_the_active_left_it(machines: Machines, tmp_path: Path) -> None:
    consoles = {site: tmp_path / f"{site}.console" for site in ("one", "two")}
    machines.boot("one", *boot_arguments(tmp_path, consoles["one"]))
    machines.boot("two", *boot_arguments(tmp_path, consoles["two"]), standby=True)
    await until(lambda: GOOD in consoles["one"].read_bytes() if consoles["one"].exists() else False)
    first, second = [await machines.watch(site, checkpoint_interval_ms=20) for site in ("one", "two")]
    await until(lambda: first.seen.protection is Protection.PROTECTED and second.seen.in_sync)
    await until(lambda: len(second.of(CheckpointSeen)) > 40)
    said_before = len(consoles["two"].read_bytes())  # it runs for a moment after each checkpoint
    assert said_before
    assert isinstance(await second.driver.promote(promote()), Promoted)
    await until(lambda: len(consoles["two"].read_bytes()) > said_before + 20)
    assert all(BAD not in console.read_bytes() for console in consoles.values())
