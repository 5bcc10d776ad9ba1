"""The protected service of the workload `vm`: one virtual machine, as an active and a standby QEMU, started by the lab.

A server site is the hypervisor's host then: QEMU runs in the site's namespace, its network card is a tap on br-svc, and
checkpoints go over T1 from br-t1's own port. An agent is never QEMU's parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns, procs
from tunnelswitch_lab.agents import check_alive
from tunnelswitch_lab.guest.image import Image, image, qemu_command
from tunnelswitch_lab.guest.machine import Machine, command, kvm_works
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.procs import Proc

READY = "service: ready"
# T1 goes through the userspace switch, whose packet sockets hold some 90 packets: a checkpoint sent as one burst would
# lose a part of itself there, and wait 200 ms for the retransmission. These hold for the site's namespace (tcp(7)).
# Carriers send in no bursts, and far sites need the room.
_TCP = {"tcp_rmem": "4096 65536 98304", "tcp_rto_min_us": "10000"}
_TCP_CARRIED = {"tcp_rmem": "4096 131072 4194304", "tcp_rto_min_us": "10000"}
_BOOT_SECONDS = 60.0
_START_SECONDS = 10.0
_TOOL_SECONDS = 5.0


async def start(layout: Layout, spawn: Callable[..., Proc], *, held: bool = False, carried: bool = False) -> None:
    """Start both copies and return when the active's service is up. `held`: an agent stands between them and br-svc;
    `carried`: carriers between them and T1. Raises LabError if one does not start."""
    qemu, made = await asyncio.to_thread(lambda: (qemu_command(), image()))
    started = []
    for server in layout.servers:
        await plug(server, server.migration_address, held=held, carried=carried)
        started.append(await start_copy(layout, server, spawn, qemu, made, standby=server.name != names.SERVERS[0]))
    console = layout.console(names.SERVERS[0])

    async def booted() -> bool:
        for proc in started:
            check_alive(proc)
        return console.exists() and READY in console.read_text(errors="replace")

    try:
        await netns.wait_for(booted, "the guest's service", _BOOT_SECONDS)
    except TimeoutError as error:
        raise LabError(f"{error} (console: {console})") from None


async def start_copy(
    layout: Layout, server: Site, spawn: Callable[..., Proc], qemu: list[str], made: Image, *, standby: bool
) -> Proc:
    """Start one QEMU, and return when its monitor is there."""
    qmp, console = layout.qmp_socket(server.name), layout.console(server.name)
    for stale in (qmp, console):
        stale.unlink(missing_ok=True)
    machine = Machine(
        site=server.name,
        run=os.urandom(8),
        standby=standby,
        tap=names.TAP,
        mac=names.SERVICE_MAC,
        address=f"{names.SERVICE_ADDRESS}/24",
        client=(names.CLIENT_ADDRESS, names.CLIENT_MAC),
        mtu_bytes=names.INNER_MTU,
        qmp=qmp,
        console=console,
        kvm=kvm_works(),
    )
    # Behind the switches it would stand still longer at checkpoints, and wake up later.
    nice = procs.FURNITURE_NICE
    proc = spawn(server.namespace, command(qemu, made, machine), name=f"service-{server.name}", nice=nice)

    async def listening() -> bool:
        check_alive(proc)
        return qmp.exists()

    try:
        await netns.wait_for(listening, f"the monitor of {proc.name}", _START_SECONDS)
    except TimeoutError as error:
        raise LabError(f"{error} (log: {proc.log})") from None
    return proc


async def start_standby(
    layout: Layout, server: Site, spawn: Callable[..., Proc], *, held: bool = False, carried: bool = False
) -> Proc:
    """Start a fresh QEMU that waits to be given the machine's state. Raises LabError if it does not start."""
    qemu, made = await asyncio.to_thread(lambda: (qemu_command(), image()))
    await plug(server, server.migration_address, held=held, carried=carried)
    return await start_copy(layout, server, spawn, qemu, made, standby=True)


async def plug(server: Site, address: str, *, held: bool = False, carried: bool = False) -> None:
    """Give the host its two ends: the machine's card on br-svc, and an address of its own on T1."""
    async with netns.netlink(server.service_namespace) as ip:
        await ip.link("set", index=await netns.index_of(ip, "eth0"), state="down")
    netns.add_tap(server.namespace, names.TAP)
    port = await _hold(server) if held else names.TAP
    async with netns.netlink(server.namespace) as ip:
        await netns.set_up(ip, names.TAP, mtu=names.INNER_MTU)
        index = await netns.set_up(ip, "br-t1", mtu=names.INNER_MTU)
        await ip.addr("replace", index=index, address=address, prefixlen=24)
    with netns.entered(server.namespace):
        for name, value in (_TCP_CARRIED if carried else _TCP).items():
            with contextlib.suppress(FileNotFoundError):  # an older kernel waits longer, and that is all
                (Path("/proc/sys/net/ipv4") / name).write_text(value)
    other = names.TAP if held else names.HOLD_PORT
    await switch(server, "--if-exists", "del-port", "br-svc", other, "--", "--may-exist", "add-port", "br-svc", port)


async def _hold(server: Site) -> str:
    """A veth pair between the machine's tap and the bridge; returns the bridge's port."""
    async with netns.netlink(server.namespace) as ip:
        there = list(await ip.link_lookup(ifname=names.HOLD))
    if not there:
        inner, port = (
            netns.End(server.namespace, device, names.INNER_MTU, arp=False) for device in (names.HOLD, names.HOLD_PORT)
        )
        await netns.add_veth(inner, port)
    return names.HOLD_PORT


async def unplug(layout: Layout) -> None:
    """Make room for the workload `process`, which has the same address."""
    for server in layout.servers:
        async with netns.netlink(server.namespace) as ip:
            plugged = list(await ip.link_lookup(ifname=names.TAP))
        if plugged:
            for port in (names.TAP, names.HOLD_PORT):
                await switch(server, "--if-exists", "del-port", "br-svc", port)
        async with netns.netlink(server.service_namespace) as ip:
            await netns.set_up(ip, "eth0")


async def switch(server: Site, *arguments: str) -> None:
    """ovs-vsctl at a site. Raises LabError."""
    tool = ["ovs-vsctl", f"--db={server.ovsdb}", f"--timeout={_TOOL_SECONDS:.0f}", *arguments]
    try:
        await procs.check_output(tool, _TOOL_SECONDS + 1)
    except (RuntimeError, TimeoutError) as error:
        raise LabError(f"the virtual machine cannot be plugged in at {server.name}: {error}") from None
