"""Every identity of a deployment, and what it may publish and subscribe to. Pure: one table, from which the servers'
configuration and docs/security.md are made.

A site speaks only as itself; a switcher alone writes the records of its gateway's groups; an operator alone asks for
moves; a viewer hears everything and says nothing (PROTOCOL A2). Replies come to inboxes that nobody else may hear.

The store is in an account of its own. A server answers to whatever reply subject a request names, without asking
whether the client may publish there: in the store's account, a request that is allowed would be a way to overwrite a
record. Across accounts an answer comes back to the asker's, where there is no store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tunnelswitch.bus import nkey, speech, subjects
from tunnelswitch.bus.store import FIND_META_LEADER, MOVE_META_LEADER, StoreSubjects
from tunnelswitch.config import Deployment, SiteKind

BUS_ACCOUNT, STORE_ACCOUNT, SYSTEM_ACCOUNT = "BUS", "STORE", "SYS"
STORE_API = "STORE.API"
"""Under this name an account has what it may ask of JetStream in the store's account; `$JS.API` is its own."""


class Role(StrEnum):
    """What an identity is for."""

    AGENT = "agent"
    SWITCHER = "switcher"
    STORE = "store"
    """Writes records: a switcher's or operator's second identity, in an account of its own."""
    SYSTEM = "system"
    """Keeps JetStream's own leader off the active site: a switcher's third."""
    OPERATOR = "operator"
    VIEWER = "viewer"


PEOPLE = (Role.OPERATOR, Role.VIEWER)


@dataclass(frozen=True, slots=True)
class Identity:
    """One key. `holder` is a site, or `operator` or `viewer`."""

    holder: str
    role: Role

    @property
    def name(self) -> str:
        """As messages and marks name it: `primary/agent`, `operator`."""
        return self.holder if self.holder == self.role else f"{self.holder}/{self.role}"

    @property
    def inbox(self) -> str:
        """The prefix of its inboxes."""
        return f"_INBOX.{self.name.replace('/', '-')}"

    @property
    def account(self) -> str:
        """Its account at the NATS servers."""
        match self.role:
            case Role.STORE:
                return f"{STORE_ACCOUNT}-{self.holder}"
            case Role.SYSTEM:
                return SYSTEM_ACCOUNT
            case _:
                return BUS_ACCOUNT

    def seed(self, directory: Path) -> Path:
        """Its key, in the directory that `tunnelswitch pki init` made: one folder for each holder."""
        return directory / self.holder / f"{self.role}{nkey.SUFFIX}"


OPERATOR = Identity(Role.OPERATOR, Role.OPERATOR)
OPERATOR_STORE = Identity(Role.OPERATOR, Role.STORE)
VIEWER = Identity(Role.VIEWER, Role.VIEWER)


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects, with NATS' wildcards; what is not named is forbidden."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def identities(deployment: Deployment) -> tuple[Identity, ...]:
    """Every process of the deployment, and the people with their tools."""
    found = [Identity(site, Role.AGENT) for site in deployment.sites]
    for name, site in deployment.sites.items():
        if site.kind is SiteKind.GATEWAY:
            found += [Identity(name, role) for role in (Role.SWITCHER, Role.STORE, Role.SYSTEM)]
    return (*found, OPERATOR, OPERATOR_STORE, VIEWER)


def permissions(deployment: Deployment, identity: Identity) -> Permissions:
    """What one identity may do."""
    cluster = deployment.cluster.name
    store = StoreSubjects(cluster, STORE_API)
    reading = (store.ask(StoreSubjects.READ), store.mark(identity.name))
    everything = (f"{subjects.PREFIX}.{cluster}.>",)
    at_gateway = [group.name for group in deployment.core_groups() if identity.holder in group.gateways]
    every_group = list(deployment.groups)
    publish: tuple[str, ...]
    subscribe: tuple[str, ...] = ()
    match identity.role:
        case Role.AGENT:
            says, hears = _agent(deployment.sites[identity.holder].kind)
            publish = (*_says(cluster, says, identity.holder, ()), *reading)
            subscribe = _hears(cluster, hears)
        case Role.SWITCHER:
            publish = tuple(_says(cluster, speech.SWITCHER_SAYS, identity.holder, at_gateway))
            subscribe = _hears(cluster, speech.SWITCHER_HEARS)
        case Role.STORE if identity == OPERATOR_STORE:
            publish = (*reading, *map(store.key, every_group), store.ask(StoreSubjects.CREATE))
        case Role.STORE:
            leading = (store.ask(StoreSubjects.INFO), store.ask(StoreSubjects.STEP_DOWN))
            publish = (*reading, *map(store.key, at_gateway), *leading)
        case Role.SYSTEM:
            publish = (FIND_META_LEADER, MOVE_META_LEADER)
        case Role.OPERATOR:
            publish = tuple(_says(cluster, speech.OPERATOR_SAYS, identity.holder, every_group))
            subscribe = everything
        case Role.VIEWER:
            publish = reading
            subscribe = everything
    own = f"{identity.inbox}.>"
    return Permissions((*publish, own), (*subscribe, own))


def _agent(kind: SiteKind) -> tuple[tuple[str, ...], tuple[str, ...]]:
    match kind:
        case SiteKind.SERVER:
            return speech.SERVER_SAYS, speech.SERVER_HEARS
        case SiteKind.GATEWAY:
            return speech.GATEWAY_SAYS, speech.SITE_HEARS
        case SiteKind.WITNESS:
            return speech.WITNESS_SAYS, speech.SITE_HEARS


def _says(cluster: str, kinds: Iterable[str], site: str, groups: Iterable[str]) -> Iterator[str]:
    for kind in kinds:
        for name in (site,) if speech.is_of_site(kind) else groups:
            yield subjects.subject(cluster, kind, name)


def _hears(cluster: str, kinds: Iterable[str]) -> tuple[str, ...]:
    return tuple(subjects.wildcard(cluster, kind) for kind in kinds)
