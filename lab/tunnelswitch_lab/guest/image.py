"""The guest's kernel and first file system, made once and kept: Debian's cloud kernel, busybox, and our service in C.

Nothing is installed on the machine, and nothing here starts QEMU. What is kept is named by what it was made of, so that
a changed source is a new image.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunnelswitch_lab.guest import archive
from tunnelswitch_lab.options import LabError

HERE = Path(__file__).parent
GET_QEMU = HERE.parents[2] / "deploy/get-qemu"
# In the order in which they must be loaded; what a kernel has built in is left out.
MODULES = (
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
)
_FETCH_SECONDS = 600.0
_COMPILE_SECONDS = 60.0


@dataclass(frozen=True)
class Image:
    """What QEMU boots."""

    kernel: Path
    initrd: Path


def cache_directory() -> Path:
    """Where downloads and images are kept (`TUNNELSWITCH_CACHE`)."""
    return Path(os.environ.get("TUNNELSWITCH_CACHE", "/var/cache/tunnelswitch"))


def qemu_command() -> list[str]:
    """The beginning of a command that runs a QEMU new enough. Raises LabError if there is none to be had."""
    return shlex.split(fetch("qemu"))


def qemu_version() -> str | None:
    """That QEMU's version; None while there is none here. Fetches nothing."""
    try:
        return fetch("version") or None
    except LabError:
        return None


def image() -> Image:
    """The guest's image, made now if it is not there. Raises LabError."""
    sources = b"".join((HERE / name).read_bytes() for name in ("init", "service.c", "image.py", "archive.py"))
    files = Path(fetch("guest"))
    name = hashlib.sha256(sources + str(files).encode()).hexdigest()[:12]
    place = cache_directory() / f"guest-{name}"
    made = Image(place / "vmlinuz", place / "initrd.gz")
    if not place.exists():
        try:
            _make(files, place)
        except (OSError, StopIteration, lzma.LZMAError) as error:
            raise LabError(f"the guest's image cannot be made: {error}; remove {files} to fetch it anew") from None
    return made


def _make(files: Path, place: Path) -> None:
    """Build everything beside its place, then put it there in one step."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".work.") as work:
        new = Path(work) / "image"
        new.mkdir()
        kernel = next((files / "boot").glob("vmlinuz-*"))
        (new / "vmlinuz").write_bytes(kernel.read_bytes())
        contents = {
            "init": (HERE / "init").read_bytes(),
            "bin/busybox": (files / "usr/bin/busybox").read_bytes(),
            "bin/service": compile_service(Path(work)),
            **modules(files, kernel.name.removeprefix("vmlinuz-"), MODULES),
        }
        (new / "initrd.gz").write_bytes(gzip.compress(archive.build(contents), mtime=0))
        try:
            new.rename(place)
        except OSError:
            if not place.exists():  # else somebody else was faster
                raise


def modules(files: Path, version: str, wanted: Sequence[str]) -> dict[str, bytes]:
    """A kernel's drivers by path in a first file system, and the list of those to load, in the order given."""
    places = (files / "usr/lib/modules" / version, files / "lib/modules" / version)
    found = {path.name.partition(".")[0]: path for place in places for path in place.rglob("*.ko*")}
    contents = {}
    for name in wanted:
        path = found.get(name.replace("_", "-"), found.get(name))
        if path is not None:
            data = path.read_bytes()
            contents[f"lib/{name}.ko"] = lzma.decompress(data) if path.suffix == ".xz" else data
    order = "".join(path.removeprefix("lib/") + "\n" for path in contents)
    return {**contents, "lib/modules.order": order.encode()}


def compile_service(work: Path) -> bytes:
    """The service's program, statically linked; `work` is a directory for what that takes. Raises LabError."""
    program = work / "service"
    command = ["gcc", "-Os", "-Wall", "-static", "-s", "-o", str(program), str(HERE / "service.c")]
    run_tool(command, _COMPILE_SECONDS, "the guest's service cannot be compiled", "apt install gcc libc6-dev")
    return program.read_bytes()


def fetch(what: str) -> str:
    """What `deploy/get-qemu` prints for `what`; it fetches what is not there yet. Raises LabError."""
    if not GET_QEMU.exists():
        raise LabError("a virtual machine needs deploy/get-qemu: run the lab from a checkout of the project")
    said = run_tool(
        [str(GET_QEMU), what], _FETCH_SECONDS, f"{what} cannot be fetched", "use --workload process meanwhile"
    )
    return said.strip()


def run_tool(command: list[str], limit_seconds: float, problem: str, remedy: str) -> str:
    """What a tool prints. Raises LabError with `problem`, the reason, and `remedy`."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_seconds, check=True
        )
    except FileNotFoundError:
        raise LabError(f"{problem}: there is no {command[0]}; {remedy}") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{problem}: not done after {limit_seconds:g} s; {remedy}") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise LabError(f"{problem}: {last}; {remedy}") from None
    return done.stdout
