"""QEMUs for the tests of virtual machines; killed afterwards, also when the test run is killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from machines import Machines

from tunnelswitch_lab.guest.image import qemu_command


@pytest.fixture(scope="session")
def qemu() -> list[str]:
    """The command of a QEMU that is new enough; fetched if need be. It dies with the test run."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *qemu_command()]


@pytest.fixture
async def machines(tmp_path: Path, qemu: list[str]) -> AsyncIterator[Machines]:
    made = Machines(tmp_path, qemu)
    yield made
    await made.close()
