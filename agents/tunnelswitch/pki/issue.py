"""`tunnelswitch pki init`: every key and certificate of a deployment, one folder for each who holds some.

Run again it makes what is missing, such as a new site's. No key is ever overwritten. `nats/` and `ca.crt` are public, a
folder is for the eyes of its holder, and `ca.key` for its maker's alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tunnelswitch.bus import nkey
from tunnelswitch.config import Deployment, Site
from tunnelswitch.config.values import split_endpoint
from tunnelswitch.errors import PkiError
from tunnelswitch.pki import authorization
from tunnelswitch.pki.certificates import Authority, Wanted, certify, ends_soon
from tunnelswitch.pki.identities import identities

ACCOUNTS = Path("nats/accounts.conf")
CA, CA_KEY = Path("ca.crt"), Path("ca.key")


@dataclass
class Report:
    """What was done, by file name relative to the directory. `ending` has the dates of certificates that run out."""

    made: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    ending: dict[str, str] = field(default_factory=dict)


def issue(
    deployment: Deployment,
    directory: Path,
    *,
    renew: bool = False,
    more_users: Mapping[str, Iterable[str]] | None = None,
) -> Report:
    """Make what is missing; with `renew`, every certificate but the authority's anew, for the keys that are there.

    Args:
        more_users: as `authorization.render` takes them.

    Raises:
        PkiError: a file cannot be read or written, or what is there cannot be used.
        BusError: a seed that is there cannot be used.
    """
    try:
        return _Issue(deployment, directory, more_users).run(renew)
    except OSError as error:
        raise PkiError(
            f"{error.filename or directory}: {error.strerror}", "give a directory with --out that you may write"
        ) from None


class _Issue:
    def __init__(self, deployment: Deployment, directory: Path, more_users: Mapping[str, Iterable[str]] | None) -> None:
        self._deployment = deployment
        self._more_users = more_users
        self._directory = directory
        self._report = Report()

    def run(self, renew: bool) -> Report:
        _folder(self._directory)
        self._seeds()
        key, certificate = self._directory / CA_KEY, self._directory / CA
        for path in (key, certificate):
            (self._report.kept if path.exists() else self._report.made).append(self._name(path))
        authority = Authority(key, certificate, f"tunnelswitch {self._deployment.cluster.name}")
        self._end(certificate)
        for site, description in self._deployment.sites.items():
            for wanted in _certificates(site, description):
                self._certificate(authority, wanted, renew)
        return self._report

    def _seeds(self) -> None:
        public_keys = {}
        for identity in identities(self._deployment):
            path = identity.seed(self._directory)
            if path.exists():
                self._report.kept.append(self._name(path))
                public_keys[identity] = nkey.public(path)
            else:
                _folder(path.parent)
                public_keys[identity] = nkey.make(path)
                self._report.made.append(self._name(path))
        self._accounts(authorization.render(self._deployment, public_keys, self._more_users))

    def _accounts(self, text: str) -> None:
        path = self._directory / ACCOUNTS
        if path.exists() and path.read_text(encoding="utf-8") == text:
            self._report.kept.append(str(ACCOUNTS))
            return
        (self._report.renewed if path.exists() else self._report.made).append(str(ACCOUNTS))
        _folder(path.parent, 0o755)
        temporary = path.with_suffix(".new")
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o644)
        temporary.replace(path)

    def _certificate(self, authority: Authority, wanted: Wanted, renew: bool) -> None:
        path = self._directory / f"{wanted.name}.crt"
        key = path.with_suffix(".key")
        if path.exists() and not renew:
            self._report.kept += [self._name(path), self._name(key)] if key.exists() else [self._name(path)]
            self._end(path)
            return
        _folder(path.parent)
        (self._report.kept if key.exists() else self._report.made).append(self._name(key))
        (self._report.renewed if path.exists() else self._report.made).append(self._name(path))
        certify(wanted, key, path, None if wanted.pinned else authority)

    def _end(self, certificate: Path) -> None:
        if end := ends_soon(certificate):
            self._report.ending[self._name(certificate)] = f"{end:%Y-%m-%d}"

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._directory))


def _certificates(site: str, description: Site) -> Iterator[Wanted]:
    """A NATS node is a server to clients, and both to its like. A site's OVSDB and its own processes are there for each
    other alone: another site's certificate must not open it, whoever made both."""
    underlay = description.underlay_address
    bus = urlsplit(description.nats_url).hostname or underlay
    remote = split_endpoint(description.ovsdb.removeprefix("ssl:")) if description.ovsdb.startswith("ssl:") else None
    yield Wanted(f"{site}/nats", (underlay, bus), server=True, client=True)
    yield Wanted(f"{site}/ovsdb", (underlay, remote[0] if remote else underlay), server=True, pinned=True)
    yield Wanted(f"{site}/client", client=True, pinned=True)


def _folder(path: Path, mode: int = 0o700) -> None:
    """Made with this mode; one that is there is left as it is."""
    if not path.is_dir():
        path.mkdir(parents=True)
        os.chmod(path, mode)  # noqa: PTH101  whatever the umask says
