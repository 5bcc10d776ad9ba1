"""Which message travels under which type name and subject: one table, from which codec, schemas and docs are made.

A subject is `tsw.v1.CLUSTER.KIND.NAME`: namespace first, identifiers last, so that a subscriber can cut it off at any
point. NAME is the site or the group that the message is about. Does not publish anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from tunnelswitch.core import facts
from tunnelswitch.errors import BusError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunnelswitch.core.actions import Message

PREFIX = "tsw.v1"
"""Namespace and major version: a change that an old reader would misread gets another one."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of message. `named_by` is the field that gives the last token of the subject."""

    name: str
    message_type: type
    named_by: str
    token: Callable[[object], str]


def _kind(name: str, message_type: type, named_by: str) -> Kind:
    return Kind(name, message_type, named_by, attrgetter(named_by))


KINDS: tuple[Kind, ...] = (
    _kind("heartbeat", facts.Heartbeat, "site"),
    _kind("checkpoint", facts.CheckpointSeen, "site"),
    _kind("epoch", facts.Epoch, "record.group"),
    _kind("proof", facts.Proof, "site"),
    _kind("handover", facts.Handover, "group"),
    _kind("handover_refused", facts.HandoverRefused, "site"),
    _kind("move", facts.MoveRequest, "group"),
    _kind("plan", facts.PlanRequest, "group"),
    _kind("drain", facts.DrainRequest, "group"),
    _kind("pause", facts.PauseRequest, "group"),
    _kind("applied", facts.Applied, "site"),
    _kind("serving", facts.Serving, "site"),
    _kind("promote_failed", facts.PromoteFailed, "site"),
    _kind("decision", facts.Decision, "site"),
    _kind("failover", facts.Failover, "group"),
    _kind("traffic", facts.Traffic, "site"),
)
"""What the agents publish."""

RECORD = _kind("record", facts.GroupRecord, "group")
"""The epoch store's value; the store itself republishes every committed one under this kind's subject."""

BY_NAME = {kind.name: kind for kind in (*KINDS, RECORD)}
BY_TYPE = {kind.message_type: kind for kind in (*KINDS, RECORD)}


def checked_token(value: str, what: str) -> str:
    """`value`, if it can be one token of a subject.

    Raises:
        BusError: it cannot: only letters, digits, `_` and `-` leave the subject's shape alone.
    """
    if _TOKEN.fullmatch(value) is None:
        raise BusError(
            f"{what} {value[:80]!r} cannot be part of a subject",
            "use 1 to 64 letters, digits, '_' or '-'",
        )
    return value


def subject(cluster: str, kind: str, name: str) -> str:
    """The subject of one kind of message about one site or group.

    Raises:
        BusError: a part is not a token, or there is no such kind.
    """
    return f"{_kind_prefix(cluster, kind)}.{checked_token(name, 'name')}"


def wildcard(cluster: str, kind: str) -> str:
    """The subject that matches one kind of message about every site or group.

    Raises:
        BusError: the cluster's name is not a token, or there is no such kind.
    """
    return f"{_kind_prefix(cluster, kind)}.*"


def subject_of(cluster: str, message: Message) -> str:
    """The subject under which `message` is published.

    Raises:
        BusError: a part is not a token.
    """
    kind = BY_TYPE[type(message)]
    return subject(cluster, kind.name, kind.token(message))


def _kind_prefix(cluster: str, kind: str) -> str:
    if kind not in BY_NAME:
        raise BusError(f"there is no kind of message {kind!r}", f"use one of {', '.join(BY_NAME)}")
    return f"{PREFIX}.{checked_token(cluster, 'cluster name')}.{kind}"
