"""Kicks systemd's watchdog while this process lives and its site is fit; without systemd it does nothing.

An active that should have closed its gate and could not must not go on: its host has to die (PROTOCOL A3). That is the
unit's business (`WatchdogSec=`, `FailureAction=`); here is only what it listens to, sd_notify(3).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

import structlog

from tunnelswitch.processes.pump import Pump

KICKS_PER_PERIOD = 4

_log = structlog.get_logger(__name__)


class Watchdog:
    """One process' word to systemd.

    Args:
        fit: may the site go on? Called with the time of the pump's clock.
        environment: where systemd leaves NOTIFY_SOCKET and WATCHDOG_USEC (microseconds).
    """

    def __init__(self, fit: Callable[[float], bool], environment: Mapping[str, str] = os.environ) -> None:
        self._fit = fit
        self._address = environment.get("NOTIFY_SOCKET", "")
        microseconds = environment.get("WATCHDOG_USEC", "")
        self._period_seconds = int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Say that the process is up, and begin to kick."""
        if not self._address:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._say("READY=1")
        if self._period_seconds > 0:
            self._task = asyncio.create_task(self._kick())

    async def close(self) -> None:
        """Say that the process ends on purpose."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._socket is not None:
            self._say("STOPPING=1")
            self._socket.close()
            self._socket = None

    async def _kick(self) -> None:
        was_fit = True
        while True:
            fit = self._fit(Pump.now())
            if fit:
                self._say("WATCHDOG=1")
            elif was_fit:
                _log.error("not fit: the watchdog is not kicked", remedy="see why the gate could not be closed")
            was_fit = fit
            await asyncio.sleep(self._period_seconds / KICKS_PER_PERIOD)

    def _say(self, word: str) -> None:
        assert self._socket is not None
        # An abstract address begins with a zero byte, which systemd writes as @.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            self._socket.sendto(word.encode(), address)
        except OSError as error:
            _log.warning("systemd does not listen", said=word, error=str(error))
