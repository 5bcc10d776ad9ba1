"""A pair of real QEMUs whose checkpoints are carried: protected, taken over from, and parted like any other."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machines import SITES, Machines, promote, until

from tunnelswitch.config import Colo
from tunnelswitch.core.events import Promoted
from tunnelswitch.core.facts import Protection

# A carrier as a process that can be killed, without a deployment around it.
PROGRAM = """
import sys, time
from pathlib import Path
from tunnelswitch.replication.carrying import Carrier
out, into, here, there = sys.argv[1:]
Carrier("vm", Path(out), Path(into), here, there).start()
print("ready", flush=True)
time.sleep(3600)
"""


@pytest.fixture
def carry(tmp_path: Path) -> Iterator[Callable[[Colo, str], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(options: Colo, site: str) -> subprocess.Popen[bytes]:
        there = next(other for other in SITES if other != site)
        ends = [options.sites[name].migration_address for name in (site, there)]
        command = [sys.executable, "-c", PROGRAM, *map(str, options.carrier_sockets("vm", site)), *ends]
        with (tmp_path / f"carrier-{site}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


Carry = Callable[[Colo, str], subprocess.Popen[bytes]]


async def test_a_carried_standby_takes_over_from_a_killed_active(
    machines: Machines, carry: Carry, tmp_path: Path
) -> None:
    directory = str(tmp_path)
    for site in SITES:
        carry(machines.options(carrier_directory=directory), site)
    first, second = await machines.protected(carrier_directory=directory)
    taken = first.seen.run
    machines.signal("one", signal.SIGKILL)
    answer = await second.driver.promote(promote())
    assert isinstance(answer, Promoted), answer
    await until(lambda: second.seen.role == "active")
    assert second.seen.run != taken


async def test_an_active_goes_on_alone_without_its_carrier_and_is_protected_again_with_one(
    machines: Machines, carry: Carry, tmp_path: Path
) -> None:
    options = machines.options(carrier_directory=str(tmp_path))
    carriers = [carry(options, site) for site in SITES]
    first, _ = await machines.protected(carrier_directory=str(tmp_path))
    carriers[1].kill()
    await until(lambda: first.seen.protection is Protection.UNPROTECTED)
    assert first.seen.role == "active"
    machines.signal("two", signal.SIGKILL)
    machines.processes["two"].wait()
    carry(options, "two")
    machines.boot("two", standby=True)
    await until(lambda: first.seen.protection is Protection.PROTECTED, 60.0)
