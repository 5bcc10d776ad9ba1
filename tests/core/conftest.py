"""A deployment in good times for every story that begins with one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stories import Story, in_good_times

from tunnelswitch_lab.simulator.running import unlogged


@pytest.fixture(autouse=True, scope="module")
def _unlogged() -> Iterator[None]:
    with unlogged():
        yield


@pytest.fixture
def world() -> Story:
    return in_good_times()
