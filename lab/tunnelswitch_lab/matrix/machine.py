"""Steps that take from a site what its machine gives: disk, database, clock, processor, descriptors."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import resource
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

from tunnelswitch_lab import agents, messaging, netns, procs
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.layout import Site
from tunnelswitch_lab.matrix.steps import Stage

_DISK_BYTES = 16 << 20
_WAIT_SECONDS = 10.0
_NOTICE_SECONDS = 20.0  # what was begun before the disk was full has room for some kilobytes more
_NODE_STARTS, _NODE_GIVES_UP = "Starting nats-server", "JetStream out of resources, will be DISABLED"
_TOOL_SECONDS = 5.0
_BLOCK = bytes(1 << 16)
# A mount namespace of its own, that lives as long as this process: nothing is left to unmount.
_SMALL_DISK = (
    'mkdir -p "$1.small" && mount -t tmpfs -o size="$2" tmpfs "$1.small" && cp -a "$1/." "$1.small/" && '
    'mount --move "$1.small" "$1" && touch "$1/mounted" && exec sleep infinity'
)
_CLOCK_SOURCE = Path(__file__).with_name("clock.c")
_OFFSET = struct.Struct("=q")


@dataclass(frozen=True)
class SmallDisk:
    """Put a NATS node's store, as it is, on a file system of 16 MiB of its own."""

    site: str

    async def act(self, stage: Stage) -> None:
        bed, site = stage.bed, stage.bed.layout.site(self.site)
        store, node = messaging.store(site), f"nats-{self.site}"
        known = bed.find(node)
        known.signal(signal.SIGTERM)
        await procs.wait_gone([known.pid], _WAIT_SECONDS)
        command = ["unshare", "--mount", "sh", "-c", _SMALL_DISK, "sh", str(store), str(_DISK_BYTES)]
        holder = bed.spawn(self.site, command, name=f"disk-{self.site}")

        async def mounted() -> bool:
            agents.check_alive(holder)
            return (_seen_by(holder, store) / "mounted").exists()

        await netns.wait_for(mounted, f"a small disk at {self.site}", _WAIT_SECONDS)
        bed.start_again(node, before=["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"])
        await messaging.wait_ready(bed.layout)

    def __str__(self) -> str:
        return f"nats-{self.site} gets a disk of 16 MiB"


@dataclass(frozen=True)
class Fill:
    """Fill the small disk to its last byte (ENOSPC)."""

    site: str

    async def act(self, stage: Stage) -> None:
        ballast = _ballast(stage, self.site)
        with ballast.open("wb", buffering=0) as file:
            for size in (len(_BLOCK), 1):
                try:
                    while True:
                        file.write(_BLOCK[:size])
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def __str__(self) -> str:
        return f"the disk of nats-{self.site} is full"


@dataclass(frozen=True)
class UntilDisabled:
    """Wait until a node has noticed: its first write that finds no room ends JetStream there until it is restarted."""

    site: str

    async def act(self, stage: Stage) -> None:
        log = Path(stage.bed.find(f"nats-{self.site}").log)

        async def noticed() -> bool:
            said = await asyncio.to_thread(log.read_text, errors="replace")
            return _NODE_GIVES_UP in said.rpartition(_NODE_STARTS)[2]

        await netns.wait_for(noticed, f"nats-{self.site} without room", _NOTICE_SECONDS)

    def __str__(self) -> str:
        return f"until nats-{self.site} has given JetStream up"


@dataclass(frozen=True)
class Free:
    """Make room on the small disk again."""

    site: str

    async def act(self, stage: Stage) -> None:
        _ballast(stage, self.site).unlink()

    def __str__(self) -> str:
        return f"room on the disk of nats-{self.site}"


@dataclass(frozen=True)
class Backup:
    """Back up a site's OVSDB, with ovsdb-client(1)."""

    site: str

    async def act(self, stage: Stage) -> None:
        site = stage.bed.layout.site(self.site)
        saved = await procs.check_output(["ovsdb-client", "backup", site.ovsdb], _TOOL_SECONDS)
        _backup(site).write_text(saved)

    def __str__(self) -> str:
        return f"back up the OVSDB of {self.site}"


@dataclass(frozen=True)
class Restore:
    """Put the backup in the place of the database. Its server must not run."""

    site: str

    async def act(self, stage: Stage) -> None:
        site = stage.bed.layout.site(self.site)
        _backup(site).replace(site.directory / "conf.db")

    def __str__(self) -> str:
        return f"put the old file in the place of the OVSDB of {self.site}"


@dataclass(frozen=True)
class OwnClocks:
    """Start agents and switcher anew with a wall clock that can be set; monotonic clocks stay the kernel's."""

    async def act(self, stage: Stage) -> None:
        bed = stage.bed
        library = bed.layout.directory / "clock.so"
        compiler = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(_CLOCK_SOURCE), "-ldl"]
        await procs.check_output(compiler, _WAIT_SECONDS)
        _clock_file(stage).write_bytes(_OFFSET.pack(0))
        environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(_clock_file(stage))}
        programs = [*(f"agent-{site}" for site in names.SITES), f"switcher-{names.GATEWAY}"]
        for program in programs:
            bed.find(program).signal(signal.SIGTERM)
        await procs.wait_gone([bed.find(program).pid for program in programs], _WAIT_SECONDS)
        for program in programs:
            bed.start_again(program, env=environment)

    def __str__(self) -> str:
        return "agents and switcher get a wall clock that can be set"


@dataclass(frozen=True)
class SetClocks:
    """Set the wall clocks of agents and switcher so many seconds off."""

    offset_seconds: int

    async def act(self, stage: Stage) -> None:
        with _clock_file(stage).open("r+b", buffering=0) as file:  # it is mapped: never replace it
            file.write(_OFFSET.pack(self.offset_seconds))

    def __str__(self) -> str:
        return f"wall clocks {self.offset_seconds:+d} s"


@dataclass(frozen=True)
class Busy:
    """Busy loops, so many for each processor."""

    per_core: int
    seconds: float

    async def act(self, stage: Stage) -> None:
        number = self.per_core * (os.cpu_count() or 1)
        loops = [
            stage.bed.spawn("wan", ["sh", "-c", "while :; do :; done"], name=f"busy-{one}") for one in range(number)
        ]
        await asyncio.sleep(self.seconds)
        for loop in loops:
            loop.signal(signal.SIGKILL)
        await procs.wait_gone([loop.pid for loop in loops], _WAIT_SECONDS)

    def __str__(self) -> str:
        return f"{self.per_core} busy loops for each processor, for {self.seconds:g} s"


@dataclass(frozen=True)
class NoDescriptors:
    """A process cannot open one file or socket more (prlimit(2), EMFILE), or, with `lift`, it can again."""

    process: str
    lift: bool = False

    async def act(self, stage: Stage) -> None:
        pid = stage.bed.find(self.process).pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        taken = set(map(int, os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208  names are wanted
        lowest_free = next(number for number in itertools.count() if number not in taken)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard if self.lift else lowest_free, hard))

    def __str__(self) -> str:
        return f"{self.process} {'has file descriptors again' if self.lift else 'is out of file descriptors'}"


def _seen_by(holder: procs.Proc, path: Path) -> Path:
    """A path as a process in another mount namespace sees it (proc_pid_root(5))."""
    return Path(f"/proc/{holder.pid}/root") / path.relative_to("/")


def _ballast(stage: Stage, site: str) -> Path:
    store = messaging.store(stage.bed.layout.site(site))
    return _seen_by(stage.bed.find(f"disk-{site}"), store) / "ballast"


def _backup(site: Site) -> Path:
    return site.directory / "conf.db.backup"


def _clock_file(stage: Stage) -> Path:
    return stage.bed.layout.directory / "clock"
