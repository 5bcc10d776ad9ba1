"""Fixtures: real servers, and a proxy that can hold, cut and spoil what goes to one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from proxy import Proxy
from real_ovs import Ovs

from aioovs import Database


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a while is no fault: what a test does not say itself is generous."""
    opening, sending = Database.__init__.__kwdefaults__, Database.transact.__kwdefaults__
    monkeypatch.setitem(opening, "connect_deadline_seconds", 20.0)
    monkeypatch.setitem(opening, "liveness_deadline_seconds", 60.0)
    monkeypatch.setitem(sending, "deadline_seconds", 20.0)


@pytest.fixture
def bare_ovs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Ovs]]:
    """Makes databases whose server the test itself starts. The path is short: a unix socket's may have 107 bytes."""
    made: list[Ovs] = []

    def make() -> Ovs:
        made.append(Ovs(tmp_path_factory.mktemp("ovs")))
        return made[-1]

    yield make
    for ovs in made:
        ovs.stop()


@pytest.fixture
def ovs(bare_ovs: Callable[[], Ovs]) -> Ovs:
    """A running ovsdb-server with an initialised database."""
    one = bare_ovs()
    one.start()
    return one


@pytest.fixture
def switch(ovs: Ovs) -> Ovs:
    """The same with a running ovs-vswitchd."""
    ovs.start_switch()
    return ovs


@pytest.fixture
async def proxied(ovs: Ovs) -> AsyncIterator[Callable[[], Awaitable[Proxy]]]:
    """Makes proxies in front of the running server."""
    made: list[Proxy] = []

    async def make() -> Proxy:
        made.append(Proxy(ovs.directory / f"proxy{len(made)}.sock", ovs.socket))
        await made[-1].start()
        return made[-1]

    yield make
    for proxy in made:
        await proxy.stop()
