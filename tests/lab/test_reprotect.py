"""A pair that was parted while both machines live is one again, with nobody at the keyboard."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from tunnelswitch_lab import faults, netns
from tunnelswitch_lab.cycles.view import View
from tunnelswitch_lab.host import Init
from tunnelswitch_lab.layout import SERVERS
from tunnelswitch_lab.options import LabOptions
from tunnelswitch_lab.testbed import Testbed

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
PRIMARY = SERVERS[0]


async def test_a_machine_gets_a_fresh_standby_whatever_has_parted_the_pair(new_name: Callable[[], str]) -> None:
    bed = await Testbed.up(LabOptions(new_name(), workload="vm", checkpoint_interval_ms=100))
    init, view = Init(bed), View(bed)
    keeping: asyncio.Task[None] | None = None

    async def unprotected() -> bool:
        return await view.is_so(PRIMARY, protected=False) and not await view.is_so(PRIMARY, protected=True)

    try:
        await bed.start_service()
        await bed.start_agents()
        keeping = asyncio.create_task(init.run())
        await view.until(PRIMARY, 60, protected=True)
        active = bed.find(f"service-{PRIMARY}").pid
        await bed.inject(faults.find("link-cut:T1"))
        await netns.wait_for(unprotected, "the record says that nobody stands by", 20)
        await bed.heal()
        await view.until(PRIMARY, 60, protected=True)
        assert init.started == 1, "the standby that was left has made room for a fresh one"
        bed.find(f"carrier-{SERVERS[1]}").signal(9)
        await netns.wait_for(unprotected, "the record says that nobody stands by", 20)
        await view.until(PRIMARY, 60, protected=True)
        assert init.started == 2
        assert bed.find(f"service-{PRIMARY}").pid == active
        assert [name for name, value in view.values.items() if "tunnelswitch_epoch{" in name and value != 1] == []
    finally:
        if keeping is not None:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
        await bed.down()
