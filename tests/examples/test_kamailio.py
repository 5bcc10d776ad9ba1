"""docs/howto-kamailio.md, carried out: what it says of registrations, of kill -9, and of a registrar that hangs."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest
from kamailio_pair import EXAMPLE, Copy, register, rings, set_t1, until

from tunnelswitch.core.events import FenceDone, Promoted, PromotionFailed, RunExited

pytestmark = pytest.mark.lab

Pair = tuple[Copy, Copy]


async def serve(copy: Copy) -> None:
    answer = await copy.driver.promote(copy.promote())
    assert isinstance(answer, Promoted), answer


def unheard(copy: Copy) -> int:
    found = re.search(r'"unheard": (\d+)', (copy.state / "health").read_text())
    return int(found[1]) if found else 0


async def test_a_registration_outlives_its_registrar(pair: Pair) -> None:
    primary, secondary = pair
    await serve(primary)
    port = register(primary, "alice")
    await until(lambda: primary.is_seen("active", in_sync=True), "an active in sync")
    run = primary.seen.run
    os.kill(primary.main, signal.SIGKILL)
    await until(lambda: RunExited("pbx", run) in primary.events, "the proof")
    assert primary.processes() == set(), "the proof is that nobody serves: no worker may be left"
    await serve(secondary)
    assert rings(secondary, "alice", port)

    primary.start()  # as the unit does: it comes back as a standby, and asks for everything
    await until(lambda: primary.is_seen("standby", in_sync=True), "a standby again")
    assert primary.seen.run != run
    assert rings(primary, "alice", port)
    fenced = secondary.fence()
    assert await secondary.driver.fence(fenced) == FenceDone("pbx", fenced.run)
    assert secondary.processes() == set()
    assert await secondary.driver.fence(fenced) == FenceDone("pbx", fenced.run)


async def test_one_that_hangs_is_ended_and_only_its_end_is_the_proof(pair: Pair) -> None:
    primary, secondary = pair
    await serve(primary)
    port = register(primary, "bob")
    run = primary.seen.run
    primary.signal(signal.SIGSTOP)
    await until(lambda: primary.counts["health_failed"], "a failure of the health hook")
    assert RunExited("pbx", run) not in primary.events, "a failure proves nothing"
    await until(lambda: RunExited("pbx", run) in primary.events, "the proof")
    assert primary.counts["health_failed"] >= 2, "the third ended it, and may be counted after that"
    assert primary.processes() == set()
    await serve(secondary)
    assert rings(secondary, "bob", port)


async def test_a_hung_copy_is_not_promoted(pair: Pair) -> None:
    _, secondary = pair
    secondary.signal(signal.SIGSTOP)
    answer = await secondary.driver.promote(secondary.promote())
    assert isinstance(answer, PromotionFailed)
    assert "does not answer OPTIONS" in answer.error


async def test_a_standby_that_missed_a_registration_starts_anew(pair: Pair) -> None:
    primary, secondary = pair
    await serve(primary)
    run = secondary.seen.run
    await set_t1(secondary, "down")
    await until(lambda: primary.is_seen("active", in_sync=False), "an active that knows it is alone")
    await until(lambda: unheard(secondary) >= 3, "a standby that hears nobody")
    port = register(primary, "carol")
    await set_t1(secondary, "up")
    await until(
        lambda: RunExited("pbx", run) in secondary.events, "the end of a standby that may have missed something"
    )
    secondary.start()
    await until(
        lambda: primary.is_seen("active", in_sync=True) and secondary.is_seen("standby", in_sync=True), "protection"
    )
    os.kill(primary.main, signal.SIGKILL)
    await serve(secondary)
    assert rings(secondary, "carol", port)


def test_the_page_names_every_file() -> None:
    page = (EXAMPLE.parents[2] / "docs/howto-kamailio.md").read_text(encoding="utf-8")
    assert [file.name for file in EXAMPLE.iterdir() if f"`{file.name}`" not in page] == []


def test_a_wrong_call_of_the_hook_is_one_line() -> None:
    for arguments, said in (
        ((), "usage: hook.py promote|fence|status|health SETTINGS"),
        (("status", "/nowhere"), "status: [Errno 2] No such file or directory: '/nowhere'"),
    ):
        done = subprocess.run(
            [EXAMPLE / "hook.py", *arguments], capture_output=True, text=True, timeout=20, check=False
        )
        assert (done.returncode, done.stderr.strip()) == (1, said)
