"""What an operator asks for, on real parts, by the commands that an operator types."""

from __future__ import annotations

import asyncio
import subprocess

import pytest
from running_lab import Running

from tunnelswitch.pki.identities import STORE_ACCOUNT
from tunnelswitch_lab import messaging, netns, procs
from tunnelswitch_lab.agents import executable

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


async def command(running: Running, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `tunnelswitch NAME` at the gateway."""
    layout = running.bed.layout
    words = [str(executable()), name, "--config", str(layout.deployment_file), *arguments]

    def call() -> subprocess.CompletedProcess[str]:
        with netns.entered(layout.gateway.namespace):
            return subprocess.run(words, capture_output=True, text=True, timeout=40, check=False)

    return await asyncio.to_thread(call)


async def test_a_site_is_drained_and_its_clients_hardly_notice(running: Running) -> None:
    async with running.watched() as view:
        drained = await command(running, "drain", "--site", "primary")
        assert (drained.returncode, drained.stderr) == (0, "")
        assert drained.stdout.splitlines() == ["voip: primary is drained", "voip: secondary serves"]
        await running.until_answered(view, "secondary")
    assert view.copies == ["primary", "secondary"]
    assert running.tunnels() == {"t3-pbx"}

    back = await command(running, "switchover", "--to", "primary", "--wait", "3")
    assert back.returncode == 1
    assert "primary is drained (tunnelswitch undrain)" in back.stderr
    assert (await command(running, "undrain", "--site", "primary")).stdout == "voip: primary may serve again\n"
    assert running.tunnels() == {"t3-pbx"}, "nothing moves back by itself"


async def test_a_planned_move_loses_nothing_and_a_dry_run_moves_nothing(running: Running) -> None:
    dry = await command(running, "switchover", "--to", "secondary", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "voip: primary would hand over to secondary (pbx protected, checkpoint " in dry.stdout
    assert running.tunnels() == {"t2-pbx"}

    async with running.watched() as view:
        moved = await command(running, "switchover", "--to", "secondary")
        assert moved.returncode == 0, moved.stderr
        await running.until_answered(view, "secondary")
    assert view.copies == ["primary", "secondary"]
    counters = [reply.reply.counter for reply in view.replies]
    assert counters == sorted(set(counters)), "the new copy knows every packet that the old one answered"
    assert "final_checkpoint" in running.logs()


async def test_nothing_moves_while_it_is_paused(running: Running) -> None:
    paused = await command(running, "pause", "--why", "a test", "--wait")
    assert (paused.returncode, paused.stderr) == (0, "")
    assert paused.stdout.splitlines()[-1] == "voip: the switcher of gateway knows"
    status = await command(running, "status")
    assert ": a test" in status.stdout
    assert await running.metric("gateway", "switcher", "tunnelswitch_paused{") == 1

    crashed = running.proc("service-primary")
    crashed.signal(9)
    await procs.wait_gone([crashed.pid], 20.0)
    await asyncio.sleep(1.0)
    assert running.tunnels() == {"t2-pbx"}
    resumed = await command(running, "resume", "--wait")
    assert resumed.returncode == 0, resumed.stderr
    await running.until_tunnels({"t3-pbx"})

    switcher = running.proc("switcher-gateway")
    switcher.signal(9)
    unheard = await command(running, "pause", "--wait", "--within", "2")
    assert unheard.returncode == 1
    assert "no switcher has answered" in unheard.stderr


async def test_a_switchover_that_would_lose_state_is_refused_with_the_reason(running: Running) -> None:
    standby = running.proc("service-secondary")
    standby.signal(9)
    await procs.wait_gone([standby.pid], 20.0)
    await running.until_protected(False)
    await asyncio.sleep(1.0)
    refused = await command(running, "switchover", "--to", "secondary", "--wait", "5")
    assert refused.returncode == 1
    assert "voip: operator: " in refused.stderr
    assert "not in sync" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert running.client.watch(0.5).copies == ["primary"]


async def test_a_lost_record_is_recovered_above_every_mark_and_nothing_moves(running: Running) -> None:
    assert (await command(running, "switchover", "--to", "secondary")).returncode == 0
    nothing = await command(running, "recover")
    assert nothing.returncode == 1
    assert "nothing is lost" in nothing.stderr

    async def higher() -> bool:
        return await running.epoch() == 3

    async with running.watched() as view:
        await messaging.wipe(running.bed.layout)
        await asyncio.sleep(1.5)
        recovered = await command(running, "recover")
        assert recovered.returncode == 0, recovered.stderr
        assert "secondary is active" in recovered.stdout
        await running.until(higher, "epoch 3")
        await asyncio.sleep(3.0)
    assert view.copies == ["secondary"]
    assert running.tunnels() == {"t3-pbx"}


async def test_the_stores_of_most_nodes_are_lost_and_clients_notice_nothing(running: Running) -> None:
    """As docs/operations.md has it: without two stores nothing is decided; all are emptied, and the marks tell."""
    bed = running.bed
    layout = bed.layout
    assert (await command(running, "switchover", "--to", "secondary")).returncode == 0
    async with running.watched() as view:
        nodes = [running.proc(f"nats-{site.name}") for site in layout.sites]
        for node in nodes:
            node.signal(9)
        await procs.wait_gone([node.pid for node in nodes], 20.0)
        messaging.clear(layout)
        for site in layout.sites:
            messaging.start(layout, site, bed._spawn_for_site, tls=bed.options.tls)
        await messaging.wait_ready(layout)

        async def back() -> bool:
            sites = [site.name for site in layout.sites]
            return all([await running.metric(site, "agent", "tunnelswitch_bus_connected") == 1 for site in sites])

        await running.until(back, "agents on the bus")
        status = await command(running, "status", "-f", "json")
        assert status.returncode == 1
        assert "`tunnelswitch recover` if it is lost" in status.stdout
        recovered = await command(running, "recover")
        assert recovered.returncode == 0, recovered.stderr
        assert "secondary is active" in recovered.stdout
    assert view.copies == ["secondary"]
    assert running.tunnels() == {"t3-pbx"}


async def test_a_record_that_is_no_record_is_recovered_too(running: Running) -> None:
    layout = running.bed.layout

    async def spoil() -> None:
        client = await messaging.connect(layout, layout.gateway, STORE_ACCOUNT)
        await client.jetstream().publish(f"$KV.tunnelswitch-{layout.name}.voip", b"not a record")
        await client.close()

    await netns.run_inside(layout.gateway.namespace, spoil)
    await asyncio.sleep(1.5)
    assert running.client.watch(0.5).copies == ["primary"]
    recovered = await command(running, "recover")
    assert recovered.returncode == 0, recovered.stderr
    assert running.client.watch(0.5).copies == ["primary"]


async def test_recover_wants_to_hear_every_site(running: Running) -> None:
    agent = running.proc("agent-secondary")
    agent.signal(9)
    await messaging.wipe(running.bed.layout)
    refused = await command(running, "recover")
    assert refused.returncode == 1
    assert "no heartbeat of secondary" in refused.stderr
    assert (await command(running, "recover", "--without", "secondary")).returncode == 0
    assert running.client.watch(0.5).copies == ["primary"]


async def test_reconfigure_has_nothing_to_do_where_the_file_is_as_the_record(running: Running) -> None:
    done = await command(running, "reconfigure")
    assert done.stdout == "voip: voters primary, secondary, gateway; gateways gateway\n"
