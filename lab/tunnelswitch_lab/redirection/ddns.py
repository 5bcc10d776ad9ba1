"""Dynamic DNS: the service's name gets another address by an update (RFC 2136), and clients follow when their answer's
time to live is over (RFC 1035).

A real name server (BIND) at the gateway's site, a zone that is changed with a key (RFC 8945), the shortest time to live
that lets anybody keep an answer: one second. Each copy has an address of its own.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns, service
from tunnelswitch_lab.agents import check_alive
from tunnelswitch_lab.bench import flat
from tunnelswitch_lab.bench.pair import add_tunnels
from tunnelswitch_lab.options import CHECKPOINT_INTERVALS_MS
from tunnelswitch_lab.recording import SERVICE, Recording
from tunnelswitch_lab.redirection.methods import ASIDE, STANDING_KEYS
from tunnelswitch_lab.testbed import Testbed

ZONE, NAME = "lab.", "pbx.lab."
TTL_SECONDS = 1
KEY_NAME = "redirector."
STANDBY_ADDRESS = "192.168.77.20"
_SERVER_ADDRESS = "192.168.77.53"  # for the clients; the redirector uses the underlay
_ANSWER_SECONDS = 10.0

_CONFIGURATION = """\
options {{
    directory "{place}";
    pid-file "{place}/named.pid";
    session-keyfile "{place}/session.key";
    managed-keys-directory "{place}";
    listen-on {{ {addresses} }};
    listen-on-v6 {{ none; }};
    recursion no;
    dnssec-validation no;
    notify no;
}};
controls {{}};
key "{key_name}" {{ algorithm hmac-sha256; secret "{secret}"; }};
zone "{zone}" {{
    type primary;
    file "lab.zone";
    allow-update {{ key "{key_name}"; }};
}};
"""
_ZONE = """\
$TTL {ttl}
{zone} IN SOA ns.{zone} hostmaster.{zone} (1 60 60 3600 {ttl})
{zone} IN NS ns.{zone}
ns.{zone} IN A {server}
{name} IN A {address}
"""


class NamedClient(Recording):
    """A client that knows a name and asks for it."""

    services = (SERVICE, (STANDBY_ADDRESS, names.RTP_PORT))

    def whom(self) -> dict[str, str]:
        return {"host": NAME, "name-server": _SERVER_ADDRESS}


class Dns:
    """One record changed."""

    name = "dns"
    does = f"the name server is updated (RFC 2136); clients ask it again after {TTL_SECONDS} s at most"
    bridge = ASIDE
    programs: tuple[str, ...] = ("named",)
    record: type[Recording] = NamedClient

    async def prepare(self, bed: Testbed) -> None:
        layout = bed.layout
        await add_tunnels(layout, keys=STANDING_KEYS)
        await flat.give_address(layout.servers[1], STANDBY_ADDRESS, flat.STANDBY_MAC)
        await flat.know(layout.client_namespace, STANDBY_ADDRESS, flat.STANDBY_MAC, permanent=True)
        interval_ms = CHECKPOINT_INTERVALS_MS["process"]
        await service.start(layout, bed.spawn, interval_ms, standby_address=STANDBY_ADDRESS)
        await self._start_server(bed)

    async def _start_server(self, bed: Testbed) -> None:
        gateway = bed.layout.gateway
        await flat.attach(gateway, _SERVER_ADDRESS)
        place = _place(bed)
        _write(place, gateway.underlay_address)
        proc = bed.spawn(
            gateway.namespace, ["named", "-g", "-4", "-n", "1", "-c", str(place / "named.conf")], name="named"
        )

        async def answers() -> bool:
            check_alive(proc)
            try:
                question = dns.message.make_query(NAME, "A")
                await dns.asyncquery.udp(question, gateway.underlay_address, timeout=0.5)
            except (OSError, dns.exception.DNSException):
                return False
            return True

        async def wait() -> None:
            await netns.wait_for(answers, "the name server", _ANSWER_SECONDS)

        await netns.run_inside(gateway.namespace, wait)

    def act(self, bed: Testbed) -> list[str] | None:
        key = str(_place(bed) / "update.key")
        return ["--server", bed.layout.gateway.underlay_address, "--key-file", key]

    async def restore(self, bed: Testbed) -> None:
        await flat.restore(bed)


def _place(bed: Testbed) -> Path:
    return bed.layout.directory / "named"


def _write(place: Path, underlay_address: str) -> None:
    """The server's configuration, its zone, and the key that may change it. What an earlier run changed is gone."""
    place.mkdir(exist_ok=True)
    for left in place.iterdir():
        left.unlink()
    secret = base64.b64encode(os.urandom(32)).decode()
    (place / "update.key").write_text(secret, encoding="ascii")
    addresses = f"{underlay_address}; {_SERVER_ADDRESS};"
    text = _CONFIGURATION.format(place=place, addresses=addresses, key_name=KEY_NAME, secret=secret, zone=ZONE)
    (place / "named.conf").write_text(text, encoding="ascii")
    zone = _ZONE.format(ttl=TTL_SECONDS, zone=ZONE, server=_SERVER_ADDRESS, name=NAME, address=names.SERVICE_ADDRESS)
    (place / "lab.zone").write_text(zone, encoding="ascii")
