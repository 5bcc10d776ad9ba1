"""Reads of one step are one read of many; whatever goes wrong with that, each is read by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tunnelswitch.bus.together import Together
from tunnelswitch.errors import EpochStoreError

RTT_SECONDS = 0.08  # docs/wan.md, "continental"


class Store:
    """Answers a key with itself in capitals."""

    def __init__(self, *, changing: bool = False, away: bool = False) -> None:
        self.changing, self.away = changing, away
        self.ones: list[str] = []
        self.manies: list[list[str]] = []
        self.reads = Together(self.one, self.many)

    async def one(self, key: str, deadline_seconds: float, what: str) -> str:
        assert deadline_seconds > 0
        self.ones.append(key)
        if self.away:
            raise EpochStoreError(f"{what}: no answer")
        return key.upper()

    async def many(self, keys: Sequence[str], deadline_seconds: float) -> dict[str, str]:
        assert 0 < deadline_seconds < 1, "each has to be read by itself if that fails"
        assert deadline_seconds >= 8 * RTT_SECONDS, "four trips to the leader, of a deadline of half as much"
        self.manies.append(list(keys))
        if self.changing or self.away:
            raise EpochStoreError("records: they change")
        return {key: key.upper() for key in keys}

    async def read(self, *keys: str) -> list[str]:
        return list(await asyncio.gather(*(self.reads.read(key, 1.0, f"record {key}") for key in keys)))


async def test_reads_of_one_step_go_together() -> None:
    store = Store()
    assert await store.read("a", "b", "a") == ["A", "B", "A"]
    assert (store.ones, store.manies) == ([], [["a", "b"]])


async def test_a_read_alone_is_read_alone() -> None:
    store = Store()
    assert await store.read("a") == ["A"]
    assert await store.read("b") == ["B"]
    assert (store.ones, store.manies) == (["a", "b"], [])


async def test_each_is_read_by_itself_while_records_change() -> None:
    store = Store(changing=True)
    assert await store.read("a", "b") == ["A", "B"]
    assert sorted(store.ones) == ["a", "b"]


async def test_a_read_given_up_does_not_end_the_others() -> None:
    store = Store()
    asking = [asyncio.create_task(store.reads.read(key, 1.0, key)) for key in ("a", "b")]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert await asking[1] == "B"
    with pytest.raises(asyncio.CancelledError):
        await asking[0]


async def test_whoever_cannot_be_read_learns_it() -> None:
    store = Store(away=True)
    with pytest.raises(EpochStoreError, match="record a: no answer"):
        await store.read("a", "b")
