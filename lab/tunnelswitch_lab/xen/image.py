"""What a Xen machine boots, made once and kept: Debian's Xen 4.17 and kernel, a dom0 of its packages, and a guest.

Nothing is installed on this machine and no package's scripts are run: dom0 is the unpacked packages and one script.
What is kept is named by what it was made of, so that a changed source is a new image.
"""

from __future__ import annotations

import gzip
import hashlib
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tunnelswitch
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.guest import archive
from tunnelswitch_lab.guest.image import cache_directory, compile_service, fetch, modules, run_tool
from tunnelswitch_lab.options import LabError

HERE = Path(__file__).parent
KEEPER = Path(tunnelswitch.__file__).parents[1] / "xenkeeper"
# In the order in which they must be loaded.
DISK_MODULES = (
    *("virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"),
    *("crc32c_generic", "crc16", "mbcache", "jbd2", "ext4"),
)
GUEST_MODULES = ("xen-netfront",)
DOM0_MODULES = (
    *("drivers/xen", "drivers/net/xen-netback", "drivers/net/virtio_net.ko", "drivers/net/net_failover.ko"),
    *("drivers/virtio", "net/bridge", "net/802", "net/llc", "net/core", "lib", "crypto", "arch/x86/crypto"),
)
# Of the packages that only installing needs, and what nobody reads in dom0.
_LEFT_OUT = (
    "boot",
    "lib/modules",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/perl",
    "usr/lib/x86_64-linux-gnu/perl",
)
GUEST = "pbx"
_DISK_BYTES = 400 << 20
_TOOL_SECONDS = 120.0


@dataclass(frozen=True)
class Image:
    """What QEMU boots: the hypervisor, dom0's kernel and first file system, and dom0's disk (never written)."""

    xen: Path
    kernel: Path
    initrd: Path
    disk: Path


def qemu_command() -> list[str]:
    """The beginning of a command that runs the QEMU for Xen machines. Raises LabError if there is none to be had."""
    return shlex.split(fetch("xen-qemu"))


def image() -> Image:
    """The Xen machines' image, made now if it is not there. Raises LabError."""
    files = Path(fetch("xen"))
    place = cache_directory() / f"xen-{_fingerprint(files)}"
    if not place.exists():
        try:
            _make(files, place)
        except (OSError, StopIteration) as error:
            raise LabError(f"the Xen image cannot be made: {error}; remove {files} to fetch it anew") from None
    return Image(place / "xen", place / "vmlinuz", place / "initrd.gz", place / "dom0.img")


def _guest_config() -> str:
    """xl.cfg(5) of the guest."""
    words = f"lab.address={names.SERVICE_ADDRESS}/24 lab.client={names.CLIENT_ADDRESS}"
    words += f" lab.client_mac={names.CLIENT_MAC} lab.mtu={names.INNER_MTU}"
    text = (HERE / "guest.cfg").read_text(encoding="utf-8")
    return text.replace("@NAME@", GUEST).replace("@WORDS@", words).replace("@MAC@", names.SERVICE_MAC)


def _fingerprint(files: Path) -> str:
    parts = [str(files).encode(), _guest_config().encode()]
    sources = [*HERE.iterdir(), *KEEPER.glob("*.py"), HERE.parent / "guest/service.c"]
    parts += [path.name.encode() + path.read_bytes() for path in sorted(sources) if path.is_file()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _make(files: Path, place: Path) -> None:
    """Build everything beside its place, then put it there in one step."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".work.") as work:
        new, root = Path(work) / "image", Path(work) / "dom0"
        new.mkdir()
        kernel = next((files / "boot").glob("vmlinuz-*"))
        version = kernel.name.removeprefix("vmlinuz-")
        shutil.copy(kernel, new / "vmlinuz")
        # QEMU's -kernel takes the hypervisor as a plain multiboot ELF.
        (new / "xen").write_bytes(gzip.decompress(next((files / "boot").glob("xen-*.gz")).read_bytes()))
        busybox = (files / "bin/busybox").read_bytes()
        first = {"init": (HERE / "initrd-init").read_bytes(), "bin/busybox": busybox}
        (new / "initrd.gz").write_bytes(_packed({**first, **modules(files, version, DISK_MODULES)}))
        guest = {
            "init": (HERE / "guest-init").read_bytes(),
            "bin/busybox": busybox,
            "bin/service": compile_service(Path(work)),
            **modules(files, version, GUEST_MODULES),
        }
        _make_root(files, root, version)
        shutil.copy(kernel, root / "guest/vmlinuz")
        (root / "guest/initrd.gz").write_bytes(_packed(guest))
        _make_disk(root, new / "dom0.img")
        try:
            new.rename(place)
        except OSError:
            if not place.exists():  # else somebody else was faster
                raise


def _packed(contents: dict[str, bytes]) -> bytes:
    return gzip.compress(archive.build(contents), mtime=0)


def _make_root(files: Path, root: Path, version: str) -> None:
    """dom0's whole file system."""
    left_out = {files / path for path in _LEFT_OUT}
    shutil.copytree(
        files, root, symlinks=True, ignore=lambda folder, names: [n for n in names if Path(folder) / n in left_out]
    )
    for directory in ("dev", "proc", "sys", "run", "tmp", "root", "guest", "var/log", "var/lib/xen"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    _copy_modules(files / "lib/modules" / version, root / "lib/modules" / version)
    run_tool(["depmod", "-b", str(root), version], _TOOL_SECONDS, "dom0's modules cannot be listed", "apt install kmod")
    (root / f"guest/{GUEST}.cfg").write_text(_guest_config(), encoding="utf-8")
    for name, path in (("dom0-init", "sbin/dom0-init"), ("vif", "guest/vif")):
        shutil.copy(HERE / name, root / path)
        (root / path).chmod(0o755)
    shutil.copytree(KEEPER, root / "opt/xenkeeper", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "var/run").symlink_to("/run")
    compiled = ["chroot", str(root), "/usr/bin/env", "PYTHONPATH=/opt", "python3", "-m", "xenkeeper", "--help"]
    run_tool(compiled, _TOOL_SECONDS, "dom0's Python does not run", "")  # and leaves its modules compiled
    there = {path.name for place in ("bin", "sbin", "usr/bin", "usr/sbin") for path in (root / place).iterdir()}
    tools = run_tool([str(root / "bin/busybox"), "--list"], _TOOL_SECONDS, "busybox does not run", "").split()
    for tool in set(tools) - there:
        (root / "bin" / tool).symlink_to("/bin/busybox")


def _copy_modules(source: Path, target: Path) -> None:
    """The drivers that dom0 may load."""
    for name in DOM0_MODULES:
        path, place = source / "kernel" / name, target / "kernel" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, place)
        else:
            shutil.copy(path, place)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(source / name, target / name)


def _make_disk(root: Path, disk: Path) -> None:
    with disk.open("wb") as file:
        file.truncate(_DISK_BYTES)
    command = ["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", "-d", str(root), str(disk)]
    run_tool(command, _TOOL_SECONDS, "dom0's disk cannot be made", "apt install e2fsprogs")
