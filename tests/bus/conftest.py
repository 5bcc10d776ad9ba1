"""Clusters of real servers, and agents' connections that are closed whatever a test does."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from bus_cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.fixture(scope="module")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("nats"), jetstream=False)
    try:
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture
def cluster(_cluster: Cluster) -> Cluster:
    """Three nodes that know each other; a test may do to them what it likes."""
    _cluster.restore()
    _cluster.wait_joined()
    return _cluster


@pytest.fixture(scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("jetstream"), jetstream=True)
    try:
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture
def store(_store: Cluster) -> Cluster:
    """The same with JetStream, writing to disk at once."""
    _store.restore()
    _store.wait_joined()
    _store.wait_jetstream()
    return _store


@pytest.fixture
async def closing() -> AsyncIterator[Callable[..., None]]:
    """Register what is to be closed; nothing of it may leave a task behind."""
    opened: list = []
    yield lambda *things: opened.extend(things)
    for each in opened:
        started = time.monotonic()
        await each.close()
        assert time.monotonic() - started < 20
    names = {task.get_name() for task in asyncio.all_tasks()} - {asyncio.current_task().get_name()}
    assert not {name for name in names if name.startswith("keep")}
