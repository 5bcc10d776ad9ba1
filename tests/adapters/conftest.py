"""Fixtures: three sites on real switches, made once for all tests here; each test finds them without our ports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from netns_bed import Namespace
from three_sites import ADDRESSES, Bed, Events

from aioovs import Database
from tunnelswitch.dataplane import MONITORED


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture(scope="session")
def bed_for_all() -> Iterator[Bed]:
    bed = Bed()
    try:
        asyncio.run(bed.build())
        yield bed
    finally:
        bed.close()


@pytest.fixture
def bed(bed_for_all: Bed) -> Iterator[Bed]:
    bed_for_all.clean()
    yield bed_for_all
    asyncio.run(bed_for_all.restore())


@pytest.fixture
async def databases(bed: Bed) -> AsyncIterator[dict[str, Database]]:
    async with contextlib.AsyncExitStack() as stack:
        yield {
            site: await stack.enter_async_context(
                Database(bed.switches[site].remote, tables=MONITORED, liveness_deadline_seconds=60)
            )
            for site in ADDRESSES
        }


@pytest.fixture
def namespaces() -> Iterator[Callable[[], Namespace]]:
    made: list[Namespace] = []

    def make() -> Namespace:
        made.append(Namespace())
        return made[-1]

    yield make
    for namespace in made:
        namespace.close()
