"""Labs for the tests of the testbed: names that are ours alone, removed afterwards, also after a killed test run."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from running_lab import Running

from tunnelswitch_lab import teardown
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.options import LabOptions
from tunnelswitch_lab.testbed import Testbed

_NUMBERS = itertools.count()


def remove(name: str) -> None:
    asyncio.run(teardown.remove(Layout(name)))


@pytest.fixture
def new_name() -> Iterator[Callable[[], str]]:
    """Gives names for labs; the labs are removed after the test."""
    given: list[str] = []

    def give() -> str:
        given.append(f"t{os.getpid()}x{next(_NUMBERS)}")
        return given[-1]

    yield give
    for name in given:
        remove(name)


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[str]:
    """The name of a lab that is up, without agents, for all tests of a module."""
    name = f"t{os.getpid()}x{next(_NUMBERS)}"

    async def build() -> None:
        await (await Testbed.up(LabOptions(name))).close()

    asyncio.run(build())
    yield name
    remove(name)


@pytest.fixture
async def bed(shared_lab: str) -> AsyncIterator[Testbed]:
    """A hold on the shared lab; cuts are healed afterwards."""
    testbed = await Testbed.attach(shared_lab)
    yield testbed
    await testbed.heal()
    await testbed.close()


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `tunnelswitch-lab` to its end."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("tunnelswitch-lab")
        return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)

    return call


@pytest.fixture
async def running(new_name: Callable[[], str]) -> AsyncIterator[Running]:
    bed = await Testbed.up(LabOptions(new_name(), 0.03, 3, tls=True), lambda step: None)
    await bed.start_service(25.0)
    await bed.start_agents()
    lab = Running(bed)
    await lab.until_protected()
    await lab.until_paths_up()
    yield lab
    lab.client.close()
    await bed.down()
