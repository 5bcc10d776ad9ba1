"""The command line of one copy of the virtual machine: the same at both sites, so that one can continue the other.

Two things differ on purpose: which copy it is, as the host tells the guest on request, and that the standby waits for
the machine's state with its output muted, since it runs along between checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunnelswitch_lab.guest.image import Image

MEMORY = "96M"
MUTE = "mute0"  # the object that keeps a standby silent; the agent removes it
_IDENTITY_FILE = "opt/tunnelswitch/copy"
# A userspace switch hands on frames whose checksum the sender left to the hardware.
NO_OFFLOAD = (
    "csum=off,guest_csum=off,gso=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,"
    "host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off"
)


@dataclass(frozen=True)
class Machine:
    """One copy. `run` is new for every start of QEMU; addresses are the guest's and its client's."""

    site: str
    run: bytes
    standby: bool
    tap: str
    mac: str
    address: str
    client: tuple[str, str]
    mtu_bytes: int
    qmp: Path
    console: Path
    kvm: bool = False


def command(qemu: Sequence[str], image: Image, machine: Machine) -> list[str]:
    """The whole command line. Raises ValueError for a site whose name the guest cannot carry."""
    identity = machine.run.hex() + machine.site.ljust(16)
    if len(identity) != 32:
        raise ValueError(f"site {machine.site!r} must be 1 to 16 bytes long, a run 8")
    client, client_mac = machine.client
    words = f"lab.address={machine.address} lab.client={client} lab.client_mac={client_mac} lab.mtu={machine.mtu_bytes}"
    accelerator = "kvm" if machine.kvm else "tcg,tb-size=64"
    full = [
        *qemu,
        *("-name", f"{machine.site}", "-accel", accelerator, "-machine", "pc", "-cpu", "qemu64", "-m", MEMORY),
        *("-smp", "1", "-nodefaults", "-display", "none", "-serial", f"file:{machine.console}"),
        *("-action", "reboot=shutdown,shutdown=pause,panic=pause"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", f"console=ttyS0 quiet panic=0 mitigations=off {words}"),
        *("-fw_cfg", f"name={_IDENTITY_FILE},string={identity}"),
        *("-netdev", f"tap,id=net0,ifname={machine.tap},script=no,downscript=no,vhost=off"),
        *("-device", f"virtio-net-pci,id=nic0,netdev=net0,mac={machine.mac},romfile=,{NO_OFFLOAD}"),
        *("-qmp", f"unix:{machine.qmp},server=on,wait=off"),
    ]
    if machine.standby:
        full += ["-chardev", "null,id=null0", "-incoming", "defer"]
        full += ["-object", f"filter-redirector,id={MUTE},netdev=net0,queue=rx,outdev=null0"]
    return full


def kvm_works() -> bool:
    """Whether the processor lends its help to this machine."""
    flags = Path("/proc/cpuinfo").read_text(errors="replace").split()
    return Path("/dev/kvm").exists() and bool({"vmx", "svm"} & set(flags))
