"""Stands at the standby's site, hears on the bus that a move there is committed, and does one act of redirection.

`python -m tunnelswitch_lab.redirection.redirector METHOD --url nats://... --cluster NAME --site SITE --ready FILE ...`
has everything open beforehand, as the switcher has, and then makes FILE. It decides nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

import nats
from dns.exception import DNSException
from nats.aio.msg import Msg
from pyroute2 import NetlinkError

from tunnelswitch.bus.access import Access
from tunnelswitch.errors import BusError
from tunnelswitch_lab.redirection.acts import ACTS, Act

_CONNECT_SECONDS = 5


class Redirector:
    """Acts once, on the first committed epoch that gives the service to `site`."""

    def __init__(self, site: str, act: Act) -> None:
        self._site, self._act = site, act
        self._acted = False

    async def take(self, message: Msg) -> None:
        """Judge one message of kind `epoch`; what cannot be read is not for us."""
        try:
            active = json.loads(message.data)["data"]["record"]["active"]
        except (ValueError, KeyError, TypeError):
            return
        if active != self._site or self._acted:
            return
        self._acted = True
        try:
            await self._act()
        except (OSError, NetlinkError, DNSException) as error:
            print(f"redirector: {error}", file=sys.stderr, flush=True)


async def _run(given: argparse.Namespace, rest: list[str]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with ACTS[given.method](rest) as act:
        redirector = Redirector(given.site, act)
        async with asyncio.timeout(_CONNECT_SECONDS):
            connection = await nats.connect(given.url, max_reconnect_attempts=-1, **Access(seed=given.key).options())
        try:
            await connection.subscribe(f"tsw.v1.{given.cluster}.epoch.>", cb=redirector.take)
            await connection.flush(timeout=_CONNECT_SECONDS)
            given.ready.touch()
            await stop.wait()
        finally:
            await connection.close()


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="redirector", description="One act of redirection when a move is committed.")
    parser.add_argument("method", choices=sorted(ACTS))
    parser.add_argument("--url", required=True, help="the site's NATS node")
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--site", required=True, help="where the service must have moved to")
    parser.add_argument("--key", required=True, metavar="FILE", help="an nkey seed that may hear the cluster")
    parser.add_argument("--ready", type=Path, required=True, metavar="FILE")
    given, rest = parser.parse_known_args(arguments)
    try:
        asyncio.run(_run(given, rest))
    except (OSError, LookupError, nats.errors.Error, BusError) as error:
        print(f"redirector: {given.method} cannot be done here: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
