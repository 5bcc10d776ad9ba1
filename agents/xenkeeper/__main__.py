"""`python3 -m xenkeeper --socket PATH`: keep the guest that an agent names, until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

from xenkeeper.control import Control
from xenkeeper.xl import Ledger, Xl

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_USAGE_STATUS = 2
_LEDGER_POLL_SECONDS = 0.1


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="xenkeeper", description="Keeps one guest under Xen Remus for its agent.")
    parser.add_argument("--socket", required=True, type=Path, help="unix socket for the agent, an absolute path")
    parser.add_argument("--xl", default="xl", help="the xl to run (default: the one in PATH)")
    options = parser.parse_args()
    for problem in _problems(options.socket, options.xl):
        print(f"xenkeeper: {problem}", file=sys.stderr)
        raise SystemExit(_USAGE_STATUS)
    boot = _BOOT.read_text(encoding="ascii")[:8]
    asyncio.run(_run(options.socket, options.xl, boot))


def _problems(socket: Path, xl: str) -> list[str]:
    found = []
    if not socket.is_absolute() or not socket.parent.is_dir():
        found.append(f"--socket {socket}: give an absolute path in a directory that exists")
    if shutil.which(xl) is None:
        found.append(f"there is no {xl}: install xen-utils, or name it with --xl")
    if shutil.which("socat") is None:
        found.append("there is no socat, which carries the checkpoints: install it")
    return found


async def _run(socket: Path, program: str, boot: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ledger = Ledger(socket.with_suffix(".xl"))
    if ledger.running():
        _log("waits for the xl of a former keeper to end")
    while ledger.running() and not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEDGER_POLL_SECONDS):
                await stop.wait()
    control = Control(socket, Xl(program, ledger, _log), boot, _log)
    try:
        await control.start()
    except OSError as error:
        _log(f"nobody can listen at {socket}: {error.strerror}")
        raise SystemExit(_USAGE_STATUS) from None
    await stop.wait()
    await control.close()
    # asyncio may wait for ever for a program whose start it cancels, as it would at its end (CPython gh-103847).
    os._exit(0)


def _log(line: str) -> None:
    print(f"xenkeeper: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
