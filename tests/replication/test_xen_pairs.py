"""Two hosts, a real keeper on each, a stand-in xl that behaves: what becomes of the guest, by the hosts' own lists."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest
from xen_bench import Pair, eventually, fence_action, promote_action

from tunnelswitch.core.actions import TakeCheckpoint
from tunnelswitch.core.events import (
    CheckpointFailed,
    CheckpointTaken,
    FenceDone,
    FenceFailed,
    Promoted,
    PromotionFailed,
    RunExited,
)
from tunnelswitch.core.facts import CheckpointSeen, Protection


async def test_a_guest_becomes_protected_and_both_sites_say_so(pair: Pair) -> None:
    await pair.start_protected()
    assert pair.here.seen.role == "active"
    assert pair.here.seen.protection is Protection.PROTECTED
    assert pair.there.seen.role == "standby"
    assert pair.there.names() == {"pbx--incoming": "--p---"}
    await eventually(lambda: pair.there.emitted(CheckpointSeen))
    committed = pair.there.emitted(CheckpointSeen)[0]
    assert (committed.role, committed.run) == ("standby", pair.there.seen.run)
    await eventually(lambda: committed.sequence in {seen.sequence for seen in pair.here.emitted(CheckpointSeen)})
    sent = next(seen for seen in pair.here.emitted(CheckpointSeen) if seen.sequence == committed.sequence)
    assert (sent.role, sent.run) == ("active", pair.here.seen.run)
    assert sent.bytes >= 16 * 4096


async def test_a_promoted_copy_runs_under_its_name_and_the_same_run(pair: Pair) -> None:
    await pair.start_protected()
    run = pair.there.seen.run
    await pair.here.stop_keeper()
    assert pair.there.driver
    result = await pair.there.driver.promote(promote_action(run))
    assert isinstance(result, Promoted)
    assert result.run == run
    assert pair.there.names() == {"pbx": "-b----"}
    assert pair.there.seen.role == "active"
    assert pair.there.seen.run == run


async def test_a_copy_whose_stream_ended_waits_for_a_promotion(pair: Pair) -> None:
    """Xen alone would resume it, whoever else serves."""
    await pair.start_protected()
    await pair.here.stop_keeper()
    await eventually(lambda: pair.there.counts["stream_ended"])
    assert pair.there.names() == {"pbx--incoming": "--p---"}
    assert pair.there.seen.in_sync
    assert pair.there.driver
    assert isinstance(await pair.there.driver.promote(promote_action(pair.there.seen.run)), Promoted)
    assert pair.there.names() == {"pbx": "-b----"}


async def test_agents_come_and_go_without_a_trace(pair: Pair) -> None:
    await pair.start_protected()
    runs = {site: host.seen.run for site, host in pair.hosts.items()}
    for host in pair.hosts.values():
        await host.stop_driver()
        host.events.clear()
        await host.start_driver()
    await eventually(lambda: pair.here.seen.in_sync and pair.there.seen.in_sync)
    assert {site: host.seen.run for site, host in pair.hosts.items()} == runs
    assert len(pair.here.calls("remus")) == 1


async def test_a_domain_that_ends_is_a_fact(pair: Pair) -> None:
    await pair.start_protected()
    run = pair.here.seen.run
    pair.here.remove(1)
    await eventually(lambda: RunExited("pbx", run) in pair.here.events)
    await eventually(lambda: pair.here.seen.role == "stopped")
    assert pair.there.names() == {"pbx--incoming": "--p---"}


async def test_a_crashed_domain_that_is_kept_has_ended(pair: Pair) -> None:
    await pair.start_protected()
    run = pair.here.seen.run
    pair.here.change(1, state="----c-")
    await eventually(lambda: RunExited("pbx", run) in pair.here.events)


async def test_what_ended_while_no_agent_listened_is_told_later(pair: Pair) -> None:
    await pair.start_protected()
    run = pair.here.seen.run
    await pair.here.stop_driver()
    pair.here.remove(1)
    looks = len(pair.here.calls("list"))
    await eventually(lambda: len(pair.here.calls("list")) > looks + 1)
    await pair.here.start_driver()
    await eventually(lambda: RunExited("pbx", run) in pair.here.events)


async def test_what_ended_while_no_keeper_looked_is_told_by_the_next_one(pair: Pair) -> None:
    await pair.start_protected()
    run = pair.here.seen.run
    await pair.here.stop_keeper()
    pair.here.remove(1)
    await pair.here.start_keeper()
    await eventually(lambda: RunExited("pbx", run) in pair.here.events)
    await eventually(lambda: pair.here.seen.role == "stopped")


async def test_a_checkpoint_that_is_waited_for_was_begun_after_the_question(pair: Pair) -> None:
    await pair.start_protected()
    driver, run = pair.here.driver, pair.here.seen.run
    assert driver
    await eventually(lambda: pair.here.emitted(CheckpointSeen))
    for request in range(3):
        before = pair.here.emitted(CheckpointSeen)[-1].sequence
        taken = await driver.checkpoint(TakeCheckpoint("pbx", run, request, urgent=True, deadline_seconds=20.0))
        assert isinstance(taken, CheckpointTaken)
        assert (taken.request, taken.sequence > before) == (request, True)

    async def refused(of_run: str) -> str:
        failed = await driver.checkpoint(TakeCheckpoint("pbx", of_run, 9, urgent=True, deadline_seconds=20.0))
        assert isinstance(failed, CheckpointFailed)
        return failed.error

    assert "does not run here" in await refused("0badcafe.1")
    await pair.there.stop_keeper()
    await eventually(lambda: pair.here.seen.protection is Protection.UNPROTECTED)
    assert "no standby" in await refused(run)


async def test_a_planned_switchover_ends_the_old_guest_and_leaves_no_error(pair: Pair) -> None:
    """The old one is closed, the copy promoted, the old one fenced; then the old host takes the new one's copy in."""
    await pair.start_protected()
    old, new = pair.here.seen.run, pair.there.seen.run
    assert pair.here.driver
    assert pair.there.driver
    assert isinstance(await pair.there.driver.promote(promote_action(new)), Promoted)
    assert isinstance(await pair.here.driver.fence(fence_action(old)), FenceDone)
    assert RunExited("pbx", old) in pair.here.events
    await eventually(lambda: pair.here.seen.role == "standby" and pair.here.seen.in_sync)
    assert pair.there.seen.role == "active"
    assert pair.here.names() == {"pbx--incoming": "--p---"}


async def test_a_fence_destroys_a_guest_amid_checkpoints(pair: Pair) -> None:
    await pair.start_protected()
    assert pair.here.driver
    assert isinstance(await pair.here.driver.fence(fence_action(pair.here.seen.run)), FenceDone)
    assert pair.here.names() == {}
    assert pair.here.counts["peer_lost"] == 0
    await eventually(lambda: pair.there.counts["stream_ended"])
    assert pair.there.names() == {"pbx--incoming": "--p---"}


async def test_a_fence_that_did_not_work_is_none(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelswitch.replication.xen.ANSWER_SECONDS", 1.0)  # for the keeper's word that it did not
    await pair.start_protected()
    assert pair.here.driver
    here = pair.here.seen.run
    other = await pair.here.driver.fence(fence_action("0badcafe.1"))
    assert isinstance(other, FenceFailed)
    assert "not of this boot" in other.error
    trouble = pair.here.trouble("destroy-fails")
    failed = await pair.here.driver.fence(fence_action(here, 4.0))
    assert isinstance(failed, FenceFailed)
    assert "still runs" in failed.error
    trouble.unlink()
    assert isinstance(await pair.here.driver.fence(fence_action(here)), FenceDone)


async def test_a_standby_can_be_fenced_and_is_not_resumed(pair: Pair) -> None:
    await pair.start_protected()
    assert pair.there.driver
    run = pair.there.seen.run
    assert isinstance(await pair.there.driver.fence(fence_action(run)), FenceDone)
    assert RunExited("pbx", run) in pair.there.events
    assert "pbx" not in pair.there.names()


async def test_the_guest_goes_on_when_the_standby_no_longer_commits(pair: Pair) -> None:
    """Without the watch it would stand still as long as the silent host does."""
    await pair.start_protected(stall_seconds=1.5)
    pair.there.trouble("stuck")
    await eventually(lambda: pair.here.seen.protection is Protection.UNPROTECTED)
    await eventually(lambda: pair.here.counts["peer_lost"] == 1)
    assert pair.here.names() == {"pbx": "-b----"}
    assert "no checkpoint was committed" in pair.here.log()


async def test_a_silent_primary_ends_the_stream_and_not_the_copy(pair: Pair) -> None:
    await pair.start_protected(silence_seconds=2.0)
    assert pair.here.keeper
    pair.here.keeper.send_signal(signal.SIGSTOP)
    await eventually(lambda: pair.there.counts["stream_ended"])
    assert "silent for 2 s" in pair.there.log()
    assert pair.there.names() == {"pbx--incoming": "--p---"}
    assert pair.there.seen.in_sync
    pair.here.keeper.send_signal(signal.SIGCONT)


async def test_a_killed_keeper_of_the_active_leaves_the_guest_alone_and_its_successor_protects_it_again(
    pair: Pair,
) -> None:
    await pair.start_protected()
    run = pair.here.seen.run
    await pair.here.stop_keeper()
    await pair.here.start_keeper()
    await eventually(lambda: len(pair.here.calls("remus")) == 2 and pair.here.seen.in_sync)
    assert pair.here.seen.run == run
    await eventually(lambda: pair.there.seen.in_sync)
    assert pair.there.names() == {"pbx--incoming": "--p---"}


async def test_a_copy_that_nobody_promoted_is_told_of_and_can_be_fenced(pair: Pair) -> None:
    """The standby's keeper is killed: its stream to xl ends, and Xen resumes the copy, behind a closed gate."""
    await pair.start_protected()
    run = pair.there.seen.run
    await pair.there.stop_keeper()
    await eventually(lambda: pair.there.names() == {"pbx": "-b----"})
    await pair.there.start_keeper()
    await eventually(lambda: pair.there.seen.role == "active")
    assert pair.there.seen.run == run
    assert not pair.there.seen.in_sync
    assert pair.there.driver
    assert isinstance(await pair.there.driver.fence(fence_action(run)), FenceDone)
    await eventually(lambda: pair.there.seen.role == "standby" and pair.there.seen.in_sync)
    assert pair.here.names() == {"pbx": "-b----"}


async def test_a_stopped_keeper_takes_its_copy_along(pair: Pair) -> None:
    """Left alone it would be resumed."""
    await pair.start_protected()
    await pair.there.stop_keeper(signal.SIGTERM)
    await eventually(lambda: pair.there.names() == {})


async def test_what_a_former_keeper_left_is_removed(pair: Pair) -> None:
    pair.there.create("pbx--incoming", "--p---")
    pair.here.create()
    await pair.start()
    await eventually(lambda: pair.there.counts["stale_removed"])
    await eventually(lambda: pair.there.seen.in_sync)
    assert len(pair.there.names()) == 1


async def test_two_guests_that_both_run_never_take_each_other_in(pair: Pair) -> None:
    pair.here.create()
    pair.there.create()
    await pair.start()
    await eventually(lambda: pair.here.counts["sync_failed"] and pair.there.counts["sync_failed"])
    assert pair.here.names() == pair.there.names() == {"pbx": "-b----"}
    assert pair.here.calls("remus") == pair.there.calls("remus") == []


async def test_a_guest_with_a_writable_disk_is_refused(pair: Pair) -> None:
    pair.here.create(disks=({"vdev": "xvda", "readwrite": 1}, {"vdev": "xvdb", "readwrite": 0}))
    await pair.start()
    await eventually(lambda: pair.here.counts["refused"])
    assert "no checkpoint carries: xvda\n" in pair.here.log()
    assert pair.here.calls("remus") == []
    assert pair.here.seen.protection is Protection.UNPROTECTED


async def test_a_guest_that_does_not_suspend_goes_on_and_says_why(pair: Pair) -> None:
    pair.here.trouble("no-suspend")
    pair.here.create()
    await pair.start()
    await eventually(lambda: pair.here.counts["xl_failed"])
    assert "Failed to suspend domain at primary.; the guest does not answer a suspend request" in pair.here.log()
    assert pair.here.names() == {"pbx": "-b----"}


async def test_another_xl_at_the_peer_costs_the_guest_nothing(pair: Pair) -> None:
    pair.there.trouble("other-xl")
    pair.here.create()
    await pair.start()
    await eventually(lambda: pair.here.counts["sync_failed"] and pair.there.counts["stream_ended"])
    assert "greets with b'xl migration receiver of another kind" in pair.there.log()
    assert pair.here.calls("remus") == []
    await eventually(lambda: pair.there.names() == {})


async def test_a_copy_that_cannot_be_resumed_is_no_promotion(pair: Pair) -> None:
    await pair.start_protected()
    pair.there.trouble("no-unpause")
    assert pair.there.driver
    run = pair.there.seen.run
    result = await pair.there.driver.promote(promote_action(run))
    assert isinstance(result, PromotionFailed)
    assert "Failed to unpause domain pbx" in result.error
    await eventually(lambda: RunExited("pbx", run) in pair.there.events)


async def test_a_copy_that_kept_its_other_name_serves_and_gets_its_own(pair: Pair) -> None:
    await pair.start_protected()
    pair.there.trouble("no-rename")
    await pair.here.stop_keeper()
    assert pair.there.driver
    assert isinstance(await pair.there.driver.promote(promote_action(pair.there.seen.run)), Promoted)
    assert pair.there.seen.role == "active"
    await eventually(lambda: pair.there.names() == {"pbx": "-b----"})


async def test_promotions_that_cannot_be(pair: Pair) -> None:
    pair.here.create()
    await pair.start()
    assert pair.there.driver
    nothing = await pair.there.driver.promote(promote_action())
    assert isinstance(nothing, PromotionFailed)
    await eventually(lambda: pair.there.seen.in_sync)
    other = await pair.there.driver.promote(promote_action("0badcafe.9"))
    assert isinstance(other, PromotionFailed)
    assert "0badcafe.9 is to take over" in other.error
    assert pair.there.names() == {"pbx--incoming": "--p---"}


async def test_a_list_that_fails_changes_nothing(pair: Pair) -> None:
    await pair.start_protected()
    run = pair.here.seen.run
    pair.here.trouble("list-fails")
    await eventually(lambda: pair.here.counts["xl_failed"])
    assert RunExited("pbx", run) not in pair.here.events
    assert pair.here.seen.run == run


async def test_a_stranger_at_the_door_does_not_cost_a_connected_copy(pair: Pair) -> None:
    await pair.start_protected()
    run = pair.there.seen.run
    host, _, port = pair.there.options.sites["secondary"].migration_address.rpartition(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.setblocking(False)
        await asyncio.get_running_loop().sock_recv(stranger, 100)
    assert pair.there.seen.run == run
    assert pair.there.seen.in_sync


async def test_the_socket_is_for_root_alone_and_one_keeper(pair: Pair) -> None:
    keeper = await pair.here.start_keeper()
    path = pair.here.directory / "keeper.sock"
    await eventually(path.exists)
    assert path.stat().st_mode & 0o777 == 0o600
    second = await pair.here.start_keeper()
    assert await second.wait() == 2
    assert "another keeper does" in pair.here.log()
    os.kill(keeper.pid, signal.SIGTERM)
    assert await keeper.wait() == 0
    assert not path.exists()


def test_no_signal_is_ever_sent_to_an_xl() -> None:
    sources = Path(__file__).parents[2] / "agents/xenkeeper"
    for source in sources.glob("*.py"):
        text = source.read_text(encoding="utf-8")
        assert "os.kill" not in text
        assert text.count(".kill()") == (source.name == "looking.py")  # xenstore-watch
        assert ".terminate()" not in text
