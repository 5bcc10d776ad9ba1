"""Two emulated Xen machines, one in each server site's namespace, plugged into the site's switch: QEMU without KVM, for
Xen needs a processor that lets it virtualise, and TCG emulates one.

A site is the machine's outside then: its agent reaches the keeper in dom0 over T1's bridge, and when the host is lost
the machine is killed with everything else of the site.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.agents import check_alive
from tunnelswitch_lab.guest.machine import NO_OFFLOAD
from tunnelswitch_lab.layout import Layout, Site
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.procs import Proc
from tunnelswitch_lab.virtual import plug, switch
from tunnelswitch_lab.xen.image import GUEST, Image, image, qemu_command

READY = "dom0: ready"
SERVES = "service: ready"
SHELL_PORT, KEEPER_PORT = 9999, 9998
_T1_TAP = "vm1"
# What breaks otherwise: smap crashes dom0, rdtscp kills a PVH guest, avx and xsave spoil what a checkpoint saves.
_CPU = "max,-smap,-rdtscp,+invtsc,-avx,-avx2,-f16c,-xsave,-xsaveopt,-xsavec,-xsaves"
_MEMORY, _DOM0_MEMORY = "1024", "640M"
_NICE = 5  # agents and switches go before machines, as they would on hardware
_BOOT_SECONDS = 150.0
_CREATE_SECONDS = 90.0
_AGAIN_SECONDS = 0.2
_ANSWER_MAX_BYTES = 1 << 20


async def start(layout: Layout, spawn: Callable[..., Proc]) -> None:
    """Boot both machines, and create the guest at the first site; returns when its service is up. Raises LabError."""
    qemu, made = await asyncio.to_thread(lambda: (qemu_command(), image()))
    started = []
    for server in layout.servers:
        await _plug(server)
        layout.console(server.name).unlink(missing_ok=True)
        command = _command(qemu, made, layout, server)
        started.append(spawn(server.namespace, command, name=f"service-{server.name}", nice=_NICE))
    await asyncio.gather(*(_booted(layout, proc) for proc in started))
    for server in layout.servers:
        spawn(server.namespace, _forwarder(layout, server), name=f"service-keeper-{server.name}")
    first = layout.servers[0]
    await run(first, f"xl create /guest/{GUEST}.cfg", _CREATE_SECONDS)

    async def serves() -> bool:
        return SERVES in await run(first, f"cat /var/log/xen/guest-{GUEST}.log", _CREATE_SECONDS)

    try:
        await netns.wait_for(serves, "the guest's service", _CREATE_SECONDS, 0.5)
    except TimeoutError as error:
        raise LabError(f"{error} (console: {layout.console(first.name)})") from None


async def run(server: Site, command: str, limit_seconds: float) -> str:
    """What a shell command prints in a machine's dom0. Raises LabError if there is no answer in time."""

    async def ask() -> bytes:
        while True:
            try:
                reader, writer = await asyncio.open_connection(server.migration_address, SHELL_PORT)
                break
            except ConnectionRefusedError:  # it has just booted
                await asyncio.sleep(_AGAIN_SECONDS)
        try:
            writer.write(f"{{ {command}\n}} </dev/null 2>&1; exit\n".encode())
            answer = b""
            while len(answer) < _ANSWER_MAX_BYTES and (more := await reader.read(1 << 16)):
                answer += more
        finally:
            writer.close()
        return answer

    async def bounded() -> bytes:
        async with asyncio.timeout(limit_seconds):
            return await ask()

    try:
        return (await netns.run_inside(server.namespace, bounded)).decode(errors="replace")
    except (OSError, TimeoutError) as error:
        raise LabError(f"dom0 of {server.name} does not do {command!r}: {error or 'no answer'}") from None


async def _booted(layout: Layout, proc: Proc) -> None:
    console = layout.console(proc.site)

    async def ready() -> bool:
        check_alive(proc)
        return console.exists() and READY in console.read_text(errors="replace")

    try:
        await netns.wait_for(ready, f"dom0 of {proc.site}", _BOOT_SECONDS, 0.25)
    except TimeoutError as error:
        raise LabError(f"{error} (console: {console})") from None


async def _plug(server: Site) -> None:
    """One card of the machine on br-svc for the guest, one on br-t1 for dom0, and an address for us beside it."""
    await plug(server, f"10.8.0.{server.number + 20}")
    netns.add_tap(server.namespace, _T1_TAP)
    async with netns.netlink(server.namespace) as ip:
        await netns.set_up(ip, _T1_TAP, mtu=names.INNER_MTU)
    await switch(server, "--may-exist", "add-port", "br-t1", _T1_TAP)


def _forwarder(layout: Layout, server: Site) -> list[str]:
    """The keeper's socket, outside of its machine. Who connects is let go when the machine is not there."""
    path = layout.keeper_socket(server.name)
    path.unlink(missing_ok=True)
    return [
        "socat",
        f"UNIX-LISTEN:{path},fork,mode=600",
        f"TCP:{server.migration_address}:{KEEPER_PORT},connect-timeout=2,keepalive,keepidle=2,keepintvl=1,keepcnt=3",
    ]


def _command(qemu: list[str], made: Image, layout: Layout, server: Site) -> list[str]:
    words = f"lab.site={server.name} lab.t1={server.migration_address}/24 lab.mtu={names.INNER_MTU}"
    full = [
        *qemu,
        *("-name", server.name, "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", _CPU),
        *("-smp", "1", "-m", _MEMORY, "-nodefaults", "-display", "none", "-no-reboot"),
        *("-serial", f"file:{layout.console(server.name)}", "-kernel", str(made.xen)),
        *(
            "-append",
            f"com1=115200,8n1 console=com1 noreboot dom0_mem={_DOM0_MEMORY},max:{_DOM0_MEMORY} dom0_max_vcpus=1",
        ),
        *("-initrd", f"{made.kernel} console=hvc0 quiet {words},{made.initrd}"),
        *("-drive", f"if=none,id=disk,file={made.disk},format=raw,snapshot=on,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=disk"),
    ]
    for number, tap in enumerate((names.TAP, _T1_TAP)):
        mac = f"02:00:4d:01:{number:02x}:{server.number:02x}"
        full += ["-netdev", f"tap,id=net{number},ifname={tap},script=no,downscript=no,vhost=off"]
        full += ["-device", f"virtio-net-pci,netdev=net{number},mac={mac},romfile=,{NO_OFFLOAD}"]
    return full
