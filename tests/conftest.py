"""For all tests."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import HealthCheck, settings

from tunnelswitch_lab import netns, procs, teardown
from tunnelswitch_lab.layout import Layout

# Both judge an example by the clock: where the machine stood still meanwhile, a right one fails.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Labs of tests are called by a letter and the process that made them.
_LAB = re.compile(r"tsw-([a-z](\d+)(?:x\d+)?)-wan")


@pytest.fixture(scope="session", autouse=True)
def _swept() -> None:
    """Remove the labs of test runs that did not live to do it themselves."""
    for namespace in netns.existing("tsw-"):
        found = _LAB.fullmatch(namespace)
        if found and procs.start_ticks(int(found[2])) is None:
            asyncio.run(teardown.remove(Layout(found[1])))
