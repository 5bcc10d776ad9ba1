"""Is a single string a usable name, address, URL or command? Each function returns what is wrong, or an empty string.

Does not know which key it is asked for, and asks no network: an address that is well formed may still lead nowhere.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePosixPath
from urllib.parse import SplitResult, urlsplit

NAME_RULE = "use 1 to 32 of a-z, 0-9 and -, beginning with a letter or digit"
SERVICE_RULE = "use 1 to 9 of a-z, 0-9 and -: its interface t2-NAME.NN may have 15 characters (IFNAMSIZ)"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SERVICE = re.compile(r"[a-z0-9-]{1,9}")
_DEVICE = re.compile(r"[^\s/:\x00-\x1f\x7f]{1,15}")
_SERVER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}")


def is_name(text: str) -> bool:
    """Names of the cluster, sites and groups: they stand in bus subjects, keys and labels."""
    return _NAME.fullmatch(text) is not None


def is_service_name(text: str) -> bool:
    """Service names are shorter: they stand in interface names."""
    return _SERVICE.fullmatch(text) is not None


def is_device(text: str) -> bool:
    """Names of bridges and network devices, as Linux takes them (dev_valid_name)."""
    return _DEVICE.fullmatch(text) is not None and text not in (".", "..")


def is_server_name(text: str) -> bool:
    """A NATS `server_name`."""
    return _SERVER.fullmatch(text) is not None


def is_address(text: str) -> bool:
    """An IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_ipv4(text: str) -> bool:
    """An IPv4 address."""
    return is_address(text) and ipaddress.ip_address(text).version == 4


def is_usable_endpoint(text: str) -> bool:
    """An address that another machine can send to: neither wildcard, loopback nor multicast."""
    if not is_address(text):
        return False
    address = ipaddress.ip_address(text)
    return not (address.is_unspecified or address.is_loopback or address.is_multicast)


def split_endpoint(text: str) -> tuple[str, int] | None:
    """`HOST:PORT` or `[IPV6]:PORT`; None when it is neither. The port is 1 to 65535."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or len(port) > 5 or not 1 <= int(port) <= 65535:
        return None
    if host.startswith("[") and host.endswith("]"):
        return (host[1:-1], int(port)) if is_address(host[1:-1]) else None
    return (host, int(port)) if _HOST.fullmatch(host) else None


def port_range(text: str) -> tuple[int, int] | None:
    """`PORT` or `FIRST-LAST`, 1 to 65535 each; None when it is neither."""
    first, _, last = text.partition("-")
    numbers = (first, last if "-" in text else first)
    if not all(number.isascii() and number.isdigit() and len(number) <= 5 for number in numbers):
        return None
    low, high = map(int, numbers)
    return (low, high) if 1 <= low <= high <= 65535 else None


def is_local_to_host(host: str) -> bool:
    """Loopback and wildcard addresses: two hosts may both have them."""
    if host == "localhost":
        return True
    return is_address(host) and not is_usable_endpoint(host)


def ovsdb_problem(remote: str) -> str:
    """An OVSDB remote in the form of ovsdb(7): unix:, tcp: or ssl:."""
    kind, _, rest = remote.partition(":")
    if kind == "unix" and PurePosixPath(rest).is_absolute() and "\0" not in rest:
        return ""
    if kind in ("tcp", "ssl") and split_endpoint(rest) is not None:
        return ""
    return "is not an OVSDB remote"


def nats_problem(url: str) -> str:
    """A NATS URL without secrets."""
    try:
        parts: SplitResult = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a NATS URL"
    if parts.username is not None or parts.password is not None:
        return "holds a user or password"
    if parts.scheme not in ("nats", "tls") or not parts.hostname or port == 0 or not _is_host(parts.hostname):
        return "is not a NATS URL"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "is not a NATS URL"
    return ""


def _is_host(text: str) -> bool:
    return is_address(text) or _HOST.fullmatch(text) is not None
