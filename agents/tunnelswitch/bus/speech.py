"""Who says what, and who hears it: one table for subscriptions, permissions and the check of every message's sender.

A site speaks as itself alone (its name ends the subject), a switcher of groups, an operator asks. Records come from the
epoch store, which says again what a switcher or `init` wrote. Whether it is true is not judged here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from tunnelswitch.bus.subjects import BY_NAME, BY_TYPE, KINDS, RECORD
from tunnelswitch.errors import BadMessageError

if TYPE_CHECKING:
    from tunnelswitch.bus.codec import Envelope


class Speaker(StrEnum):
    """What a publisher is. Its source is `SITE/agent`, `SITE/switcher` or `operator`."""

    AGENT = "agent"
    SWITCHER = "switcher"
    OPERATOR = "operator"


SERVER_SAYS = ("heartbeat", "checkpoint", "proof", "applied", "serving", "promote_failed", "handover_refused")
GATEWAY_SAYS = ("heartbeat", "traffic", "applied")
WITNESS_SAYS = ("heartbeat",)
SWITCHER_SAYS = ("applied", "decision", "epoch", "handover", "failover")
OPERATOR_SAYS = ("move", "plan", "drain", "pause")

SERVER_HEARS = ("heartbeat", "epoch", "record", "proof", "handover", "applied", "serving")
SITE_HEARS = ("heartbeat", "epoch", "record")
SWITCHER_HEARS = (
    "heartbeat",
    "epoch",
    "record",
    "proof",
    "handover_refused",
    "move",
    "plan",
    "drain",
    "pause",
    "serving",
    "promote_failed",
)

_SAYS = {
    Speaker.AGENT: {*SERVER_SAYS, *GATEWAY_SAYS, *WITNESS_SAYS},
    Speaker.SWITCHER: {*SWITCHER_SAYS},
    Speaker.OPERATOR: {*OPERATOR_SAYS},
}
_SPEAKERS = {kind.name: tuple(speaker for speaker, says in _SAYS.items() if kind.name in says) for kind in KINDS}


def is_of_site(kind: str) -> bool:
    """Does the subject of this kind of message end with the name of the site that says it?"""
    return BY_NAME[kind].named_by == "site"


def check_sender(subject: str, envelope: Envelope) -> None:
    """Does the message belong on the subject that it came on, and its source to those who may say it?

    The server's permissions let nobody publish under another one's name; this holds where there are none, and against
    whoever says one thing in the subject and another in the message.

    Raises:
        BadMessageError: `kind` is `subject` or `source`.
    """
    kind = BY_TYPE[type(envelope.message)]
    _, _, about = subject.rpartition(".")
    if kind.token(envelope.message) != about or not subject.endswith(f".{kind.name}.{about}"):
        raise BadMessageError(
            "subject",
            f"a {kind.name} about {str(kind.token(envelope.message))[:80]!r} came on {subject[:160]!r}",
            "find the publisher, it is not an agent of ours",
        )
    if kind is RECORD:
        return
    holder, _, role = envelope.source.rpartition("/")
    if role not in _SPEAKERS[kind.name] or (kind.named_by == "site" and holder != about):
        raise BadMessageError(
            "source",
            f"{envelope.source[:80]!r} may not say {kind.name} about {about!r}",
            "find the publisher, it speaks in another one's name",
        )
