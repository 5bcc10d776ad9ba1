"""A container engine of our own: started in a network namespace of its own, and removed whatever happens to us.

It never touches an engine that the machine has: socket, data, control groups and firewall rules are all apart. Removal
is the work of a guard, a process that outlives us; a run that lost even its guard is cleared away by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

NAME = "tunnelswitch-compose"
STATE = Path("/run") / NAME  # sockets: their paths must be short
NAMESPACE = Path("/run/netns") / NAME
START_SECONDS, STOP_SECONDS, COMMAND_SECONDS = 30.0, 30.0, 60.0


class TrialError(Exception):
    """The trial cannot go on, or has failed; the text says why."""


class Engine:
    """One engine at a time on a machine; a context manager. Raises TrialError if another run holds the cache."""

    def __init__(self, cache: Path, checkout: Path) -> None:
        self._data = cache / "engine"
        self._checkout = checkout
        self._compose = str(next(Path(sys.prefix).glob("lib/python*/site-packages/compose/docker-compose")))
        self._lock = (cache / "lock").open("w")
        self._guard: tuple[int, int] | None = None
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Engine:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrialError("another run is under way, or is being cleared away") from None
        remove(self._data)
        self._guard = _start_guard(lambda: remove(self._data))
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._guard:
            pid, writer = self._guard
            os.close(writer)  # this is what the guard waits for; the kernel does it if we are killed
            os.waitpid(pid, 0)
        for child in self._children:
            child.wait(STOP_SECONDS)  # the guard has ended it
        self._lock.close()

    def _start(self) -> None:
        STATE.mkdir(mode=0o700)
        run(["ip", "netns", "add", NAME])
        run(["ip", "-n", NAME, "link", "set", "lo", "up"])
        network = ["slirp4netns", "--configure", "--mtu=1500", "--netns-type=path", str(NAMESPACE), "tap0"]
        self._children.append(_spawn(network, "slirp"))
        command = ["nsenter", f"--net={NAMESPACE}", "dockerd", "--host", self._host, f"--data-root={self._data}"]
        command += [f"--exec-root={STATE}/exec", f"--pidfile={STATE}/docker.pid", f"--cgroup-parent=/{NAME}"]
        engine = _spawn([*command, "--exec-opt=native.cgroupdriver=cgroupfs"], "dockerd")
        self._children.append(engine)
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(["docker", "version"], env=self._environment, capture_output=True, check=False).returncode:
            if engine.poll() is not None or time.monotonic() > deadline:
                raise TrialError(f"dockerd does not start: {_last_line(STATE / 'dockerd.log')}")
            time.sleep(0.1)

    @property
    def _host(self) -> str:
        return f"unix://{STATE}/docker.sock"

    @property
    def _environment(self) -> dict[str, str]:
        ours = {"DOCKER_HOST": self._host, "DOCKER_CONFIG": f"{STATE}/config", "DOCKER_BUILDKIT": "0"}
        return {**os.environ, **ours}

    def docker(self, *words: str, stdin: Path | None = None, seconds: float = COMMAND_SECONDS) -> str:
        """Run `docker WORDS` and return what it prints. Raises TrialError."""
        return run(["docker", *words], env=self._environment, stdin=stdin, seconds=seconds)

    def compose(self, *words: str, seconds: float = COMMAND_SECONDS) -> str:
        """Run `docker compose WORDS` on the checkout's file and return what it prints. Raises TrialError."""
        return run([self._compose, *words], env=self._environment, cwd=self._checkout, seconds=seconds)

    def compose_in_background(self, *words: str) -> subprocess.Popen[bytes]:
        """Start `docker compose WORDS`."""
        return subprocess.Popen(
            [self._compose, *words], env=self._environment, cwd=self._checkout, stdin=subprocess.DEVNULL
        )

    def fetch(self, url: str) -> str:
        """GET a URL as a user of the engine's machine would, on a published port. Raises TrialError."""
        script = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"
        return run(["nsenter", f"--net={NAMESPACE}", sys.executable, "-c", script, url], seconds=10)


def run(
    command: Sequence[str],
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Path | None = None,
    seconds: float = COMMAND_SECONDS,
) -> str:
    """Run a command and return what it prints. Raises TrialError with the end of what it says."""
    with (stdin or Path(os.devnull)).open("rb") as source:
        try:
            done = subprocess.run(
                command, env=env, cwd=cwd, stdin=source, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise TrialError(f"{' '.join(command[:4])} ... takes longer than {seconds:g} s") from None
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise TrialError(f"{' '.join(command[:6])} ended with status {done.returncode}:\n{said}")
    return done.stdout


def remove(data: Path) -> None:
    """Remove an engine and all that it made. It need not be whole, or there at all."""
    for name in ("dockerd", "slirp"):
        _end(name)
    _kill_group()
    for mounted in reversed(_mounts(STATE, data)):
        subprocess.run(["umount", "-l", mounted], capture_output=True, check=False)
    if NAMESPACE.exists():
        subprocess.run(["ip", "netns", "delete", NAME], capture_output=True, check=False)
    for directory in (STATE, data):
        shutil.rmtree(directory, ignore_errors=True)


def _start_guard(clear: Callable[[], None]) -> tuple[int, int]:
    """Fork a process that clears away when the writing end of its pipe is closed; (its pid, that end)."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reader)
        return pid, writer
    status = 1
    try:
        os.setsid()
        os.close(writer)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        os.read(reader, 1)
        clear()
        status = 0
    finally:
        os._exit(status)


def _spawn(command: list[str], name: str) -> subprocess.Popen[bytes]:
    """Start what must outlive a signal to our group; its pid and log are in STATE."""
    with (STATE / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    (STATE / f"{name}.pid").write_text(f"{child.pid}\n")
    return child


def _end(name: str) -> None:
    """End a process of STATE: politely, then not. A pid that now belongs to somebody else is left alone."""
    try:
        pid = int((STATE / f"{name}.pid").read_text())
    except (OSError, ValueError):
        return
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + seconds
        if name == "dockerd":
            _kill_containers()
        if _is_ours(pid):
            os.kill(pid, number)
        while _is_ours(pid) and time.monotonic() < deadline:
            time.sleep(0.05)


def _is_ours(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return NAME.encode() in words and state != "Z"


def _groups() -> list[Path]:
    """The engine's control groups, children first; it is one tree, or one per controller."""
    root = Path("/sys/fs/cgroup")
    tops = [*root.glob(NAME), *root.glob(f"*/{NAME}")]
    found = [group for top in tops for group in (top, *top.rglob("*")) if group.is_dir()]
    return sorted(found, key=lambda group: len(group.parts), reverse=True)


def _kill_containers() -> None:
    """Kill what runs in the engine's control groups: an engine that is stopped would wait for it."""
    for group in _groups():
        with contextlib.suppress(OSError):  # gone meanwhile
            for word in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(word), signal.SIGKILL)


def _kill_group() -> None:
    """Kill helpers that a killed engine leaves behind, and remove its control groups."""
    for entry in Path("/proc").glob("[0-9]*"):
        words = _words(entry)
        if str(STATE).encode() in words and b"containerd" in words:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)
    _kill_containers()
    time.sleep(0.1)
    for group in _groups():
        with contextlib.suppress(OSError):
            group.rmdir()


def _words(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _mounts(*directories: Path) -> list[str]:
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for point in points if any(Path(point).is_relative_to(directory) for directory in directories)]


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"
