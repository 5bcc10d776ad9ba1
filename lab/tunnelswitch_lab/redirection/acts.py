"""The acts themselves: a few frames, a route, an update. Each is opened beforehand and then done in one go."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import dns.asyncquery
import dns.rcode
import dns.tsigkeyring
import dns.update

from tunnelswitch_lab.bench import routed
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.redirection.announcing import Act, garp
from tunnelswitch_lab.redirection.ddns import KEY_NAME, NAME, STANDBY_ADDRESS, TTL_SECONDS, ZONE

_UPDATE_SECONDS = 2.0


@contextlib.asynccontextmanager
async def bgp(arguments: list[str]) -> AsyncIterator[Act]:
    """Give the standby's router its route to the copy: bgpd announces what zebra sees."""
    parser = argparse.ArgumentParser(prog="redirector bgp")
    parser.add_argument("--lab", required=True)
    standby = Layout(parser.parse_args(arguments).lab).servers[1]
    async with routed.route_to_copy(standby) as lead:
        yield lead


@contextlib.asynccontextmanager
async def dns_update(arguments: list[str]) -> AsyncIterator[Act]:
    """Replace the name's address, signed. Raises OSError if the server does not take it."""
    parser = argparse.ArgumentParser(prog="redirector dns")
    parser.add_argument("--server", required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    given = parser.parse_args(arguments)
    secret = await asyncio.to_thread(given.key_file.read_text, encoding="ascii")
    keys = dns.tsigkeyring.from_text({KEY_NAME: secret})

    async def act() -> None:
        update = dns.update.UpdateMessage(ZONE, keyring=keys)
        update.replace(NAME, TTL_SECONDS, "A", STANDBY_ADDRESS)
        answer = await dns.asyncquery.udp(update, given.server, timeout=_UPDATE_SECONDS)
        if answer.rcode() != dns.rcode.NOERROR:
            raise OSError(f"the name server refuses the update: {dns.rcode.to_text(answer.rcode())}")

    yield act


ACTS: dict[str, Callable[[list[str]], contextlib.AbstractAsyncContextManager[Act]]] = {
    "garp": garp,
    "bgp": bgp,
    "dns": dns_update,
}
