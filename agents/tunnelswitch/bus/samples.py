"""One realistic message of every kind: the examples of the public contract, and a start for subscribers.

All belong to one story: the site `primary` dies, the gateway's switcher moves `voip` to `secondary` under a new epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunnelswitch.core import facts
from tunnelswitch.core.stamp import Stamp

if TYPE_CHECKING:
    from tunnelswitch.core.actions import Message
    from tunnelswitch.core.facts import GroupRecord

TIME = 1_790_000_000.25
_BEFORE = Stamp(7, "gateway.c0ffee.41")
_AFTER = Stamp(8, "gateway.c0ffee.42")
_RUN = "primary-4711-5d21"
_VOTERS = ("primary", "secondary", "gateway")

RECORD = facts.GroupRecord(
    group="voip",
    stamp=_AFTER,
    active="secondary",
    previous="primary",
    in_sync=False,
    reason=facts.Reason.SUSPICION,
    voters=_VOTERS,
    gateways=("gateway",),
    prev_id=_BEFORE.decision_id,
    standby_run="secondary-815-77aa",
    evidence=("gateway: path down 31 ms, bus silent 34 ms", "secondary: path down 30 ms, bus silent 33 ms"),
    decided_by="gateway/switcher",
    decided_at=TIME,
)

HEARTBEAT = facts.Heartbeat(
    site="gateway",
    incarnation="18a1b2c3d4e5f607",
    sequence=90210,
    sent_at_monotonic=12345.678901,
    interval_seconds=0.02,
    lateness_seconds=0.0004,
    marks={"voip": _BEFORE},
    heard={"primary": ("a1b2c3d4e5f60718", 90177), "secondary": ("0718a1b2c3d4e5f6", 90180)},
    observations=(
        facts.Observation("primary", facts.Path.DOWN, 0.031, facts.Bus.SILENT, 0.034),
        facts.Observation("secondary", facts.Path.UP, 1804.2, facts.Bus.ALIVE, 1804.0),
    ),
    votes=(facts.Vote("voip", "primary", _BEFORE, down=True, down_seconds=0.031),),
    services=(
        facts.ServiceStatus(
            service="pbx",
            group="voip",
            run=_RUN,
            role="active",
            protection=facts.Protection.PROTECTED,
            in_sync=True,
            gate_open=True,
            checkpoint_sequence=44_100,
            checkpoint_age_seconds=0.012,
        ),
    ),
    clients=(facts.ClientsObservation("pbx", 0.028),),
)

MESSAGES: tuple[Message, ...] = (
    HEARTBEAT,
    facts.CheckpointSeen("primary", "pbx", _RUN, "active", 44_100, 0.0021, 163_840),
    facts.Epoch(RECORD),
    facts.Proof("voip", "pbx", "primary", _BEFORE, _RUN, "a1b2c3d4e5f60718", facts.ProofKind.EXITED, gate_closed=True),
    facts.Handover("voip", _BEFORE, "secondary", facts.Reason.CUT_OFF, "gateway/switcher"),
    facts.HandoverRefused("primary", "voip", _BEFORE, "no last checkpoint of pbx: the standby did not take it"),
    facts.MoveRequest("voip", _BEFORE, "secondary", "operator@bastion"),
    facts.PlanRequest("voip", _BEFORE, "secondary", "operator@bastion"),
    facts.DrainRequest("voip", _BEFORE, "primary", drained=True, asked_by="operator@bastion"),
    facts.PauseRequest("voip", _BEFORE, paused=True, why="a switch is replaced", asked_by="operator@bastion"),
    facts.Applied("gateway", "voip", _AFTER, ("t3-pbx",), 0.0078),
    facts.Serving("secondary", "voip", _AFTER, 0.0042),
    facts.PromoteFailed("secondary", "voip", _AFTER, "promote: exit status 1: no checkpoint"),
    facts.Decision("gateway", "voip", _AFTER, "commit", "suspicion", RECORD.evidence),
    facts.Failover(
        group="voip",
        epoch=8,
        reason=facts.Reason.SUSPICION,
        active="secondary",
        previous="primary",
        marks={"path_down": TIME - 0.031, "verdict": TIME - 0.004, "committed": TIME, "switched": TIME + 0.007},
    ),
    facts.Traffic("gateway", "pbx", "rtp", 0.042, 0.062, 0.02, 2, 0.0031, TIME - 0.033, TIME + 0.029),
)


def all_samples() -> tuple[Message | GroupRecord, ...]:
    """One of every kind, the record included."""
    return (*MESSAGES, RECORD)
