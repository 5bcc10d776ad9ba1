"""The part of a nats-server's configuration that says who may do what (docs.nats.io, "Accounts", "Authorization").

Made of the permissions alone: what an account may ask of the store's is what its identities may.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from tunnelswitch.bus.access import JETSTREAM_API
from tunnelswitch.bus.store import StoreSubjects
from tunnelswitch.config import Deployment
from tunnelswitch.pki.identities import (
    BUS_ACCOUNT,
    STORE_ACCOUNT,
    STORE_API,
    SYSTEM_ACCOUNT,
    Identity,
    Permissions,
    identities,
    permissions,
)

_HEAD = """\
# Made by `tunnelswitch pki init`, which makes it anew: every NATS node of the cluster includes this file.
# It holds public keys only. Whoever is not named here does not get in.
"""


def render(
    deployment: Deployment, public_keys: Mapping[Identity, str], more_users: Mapping[str, Iterable[str]] | None = None
) -> str:
    """The accounts, each with its users.

    Args:
        more_users: further users by account, in the servers' own syntax. A lab has one that empties the store.
    """
    granted = {identity: permissions(deployment, identity) for identity in identities(deployment)}
    users: dict[str, list[str]] = {name: [] for name in (BUS_ACCOUNT, STORE_ACCOUNT, SYSTEM_ACCOUNT)}
    asked: dict[str, dict[str, None]] = {}
    for identity, allowed in granted.items():
        users.setdefault(identity.account, []).append(_user(public_keys[identity], identity, allowed))
        if identity.account != SYSTEM_ACCOUNT:
            asked.setdefault(identity.account, {}).update(dict.fromkeys(filter(_is_of_store, allowed.publish)))
    for account, further in (more_users or {}).items():
        users[account] += [f"      {user}" for user in further]
    republished = f"{StoreSubjects(deployment.cluster.name).republished}.*"
    tables = []
    for account, entries in users.items():
        lines = [f"  {json.dumps(account)}: {{", "    users: [", *entries, "    ]"]
        if account == STORE_ACCOUNT:
            lines += ["    jetstream: enabled", "    exports: [", *_exports(asked, republished), "    ]"]
        if account in asked:
            records = [_import("stream", republished)] if account == BUS_ACCOUNT else []
            lines += ["    imports: [", *(_import("service", subject) for subject in asked[account]), *records, "    ]"]
        tables.append("\n".join([*lines, "  }"]))
    return "\n".join([f"{_HEAD}accounts {{", *tables, "}", f"system_account: {SYSTEM_ACCOUNT}", ""])


def _user(public_key: str, identity: Identity, allowed: Permissions) -> str:
    publish, subscribe = (json.dumps(list(names)) for names in (allowed.publish, allowed.subscribe))
    return (
        f"      {{ nkey: {public_key}, permissions: {{  # {identity.name}\n"
        f"        publish: {{ allow: {publish} }}\n        subscribe: {{ allow: {subscribe} }}\n      }} }}"
    )


def _is_of_store(subject: str) -> bool:
    return subject.startswith((f"{STORE_API}.", "$KV."))


def _in_store(subject: str) -> str:
    """What a subject of the asker is called in the store's account."""
    return subject.replace(STORE_API, JETSTREAM_API, 1)


def _exports(asked: Mapping[str, Iterable[str]], republished: str) -> list[str]:
    accounts: dict[str, list[str]] = {}
    for account, names in asked.items():
        for subject in names:
            accounts.setdefault(_in_store(subject), []).append(account)
    services = [
        f"      {{ service: {json.dumps(subject)}, accounts: {json.dumps(who)} }}" for subject, who in accounts.items()
    ]
    return [*services, f"      {{ stream: {json.dumps(republished)}, accounts: {json.dumps([BUS_ACCOUNT])} }}"]


def _import(kind: str, subject: str) -> str:
    there = _in_store(subject)
    renamed = f", to: {json.dumps(subject)}" if there != subject else ""
    return f"      {{ {kind}: {{ account: {STORE_ACCOUNT}, subject: {json.dumps(there)} }}{renamed} }}"
