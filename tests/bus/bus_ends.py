"""Ends of the bus for tests over a real cluster, and patience with them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from bus_cluster import NAMES

from tunnelswitch.adapters.nats_bus import NatsBus
from tunnelswitch.bus.connection import Timing

if TYPE_CHECKING:
    from collections.abc import Callable

    from bus_cluster import Cluster

# A server that stands still for a while with the whole machine is not left. One that has ended is, at once.
PATIENT = Timing(connect_seconds=5.0, stagger_seconds=1.0, silence_seconds=60.0)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.002)


def bus(
    cluster: Cluster,
    source: str,
    emit: Callable[[object], None],
    node: str | None = None,
    *,
    only: tuple[str, ...] = NAMES,
    timing: Timing = PATIENT,
    **options,
) -> NatsBus:
    return NatsBus(
        [cluster.url(name) for name in only],
        cluster="lab",
        source=source,
        kinds=["heartbeat", "epoch", "proof"],
        emit=emit,
        preferred_url=cluster.url(node) if node else None,
        timing=timing,
        **options,
    )
