"""What follows from the evidence on one group (PROTOCOL R5).

Four kinds: a proof suffices alone; suspicion needs Q configured voters; cut off and an operator's wish need the
active's consent, which is a proof of its own.
"""

from __future__ import annotations

from tunnelswitch.core.evidence import Evidence, Verdict
from tunnelswitch.core.facts import Bus, GroupRecord, Path, Proof, ProofKind, Reason
from tunnelswitch.core.quorum import Ballot, quorum

# BFD that lost a session sends one packet a second until it is back (RFC 5880, 6.8.3), and it takes three of them, in
# turns. With one packet in twenty lost, eight of eleven would have to be for a false alarm to last so long: below this,
# a path that is down is no reason to leave an active that lives. Clients without an answer are one much sooner.
PATH_DOWN_SECONDS = 10.0
# A gateway that has lost the active alone, path and bus, says so after this: a majority that agrees does it sooner.
ALONE_SECONDS = 1.0
# An operator's command repeats its wish each second, or each few where the store is slow.
WISH_SECONDS = 5.0


def conclude(evidence: Evidence, record: GroupRecord, now: float) -> Verdict | None:
    """The strongest verdict that the evidence bears, or None."""
    proof = next((proof for proof in evidence.proofs.values() if _suffices(evidence, proof)), None)
    if proof is not None:
        what = f"{proof.site} proves: {proof.service} run {proof.run} {proof.kind} under {proof.stamp}"
        if proof.kind is ProofKind.FENCED and evidence.asked is not None:
            return Verdict(evidence.asked.reason, (what, *evidence.asked.evidence))
        return Verdict(Reason.PROOF, (what,))
    down = evidence.down(record, now)
    if len(down) >= quorum(len(record.voters)):
        return Verdict(
            Reason.SUSPICION, (f"path down and bus silent, say {', '.join(down)} of {len(record.voters)} voters",)
        )
    if evidence.proofs or any(status.self_fenced for status in evidence.statuses(record.active, now).values()):
        return None  # it closed itself under this stamp, so nothing more is asked of it: it is to be re-armed
    cut_off = _cut_off(evidence, record, now)
    if cut_off is not None and not cut_off.against:
        return cut_off
    return _wished(evidence, record, now) or _drained(evidence, record) or cut_off


def _suffices(evidence: Evidence, proof: Proof) -> bool:
    """A gate that was to be closed as planned, and was closed for another reason, or by an agent that forgot the plan:
    the standby may lack what clients saw last. The active is well, and gets its service back."""
    planned = evidence.asked is not None and evidence.asked.reason is Reason.OPERATOR
    return proof.kind is ProofKind.EXITED or not planned or proof.final_checkpoint > 0


def _cut_off(evidence: Evidence, record: GroupRecord, now: float) -> Verdict | None:
    """The active lives, but this gateway's clients do not get through to it, while the standby's path is up."""
    if not evidence.statuses(record.active, now):
        return None  # not heard, or it has not said yet whether it could serve them at all
    gateway, target = evidence.gateway, evidence.group.other(record.active)
    ballot = evidence.ballot(gateway, now)
    if ballot is None or ballot.heartbeat.late or evidence.path_to(target, now) is not Path.UP:
        return None
    why = []
    seen = evidence.seen(record.active, now)
    if seen is None or seen.bus is not Bus.ALIVE:
        return None
    # One that is just coming back is given the time to show its path, and to answer.
    heard_seconds = seen.bus_seconds
    path_lost = seen.path is Path.DOWN and seen.path_seconds >= PATH_DOWN_SECONDS
    if path_lost and heard_seconds >= evidence.timing.window_seconds:
        why.append(f"{gateway} sees the path to {record.active} down")
    unanswered = _unanswered(evidence, record.active, ballot, heard_seconds, now)
    in_vain = not why and all(evidence.brake.holds(name) for name in unanswered)
    why += [f"clients of {name} unanswered for {ballot.unanswered_seconds(name):.3f} s" for name in unanswered]
    if not why:
        return None
    # A path that is down says enough of their silence: the copy behind it may be well.
    tried = unanswered if seen.path is Path.UP else ()
    against = (_in_vain(record, unanswered),) if in_vain else ()
    return Verdict(Reason.CUT_OFF, tuple(why), consent_needed=True, unanswered=tried, against=against)


def _unanswered(evidence: Evidence, active: str, ballot: Ballot, heard_seconds: float, now: float) -> tuple[str, ...]:
    """The services whose clients here have waited for too long. Nobody could answer while the gate was closed: that is
    no fault of the copy behind it."""
    patience_seconds, open_since = evidence.timing.unanswered_seconds, evidence.open_since(active)
    if open_since is not None and now - open_since < patience_seconds:
        return ()
    names = [service.name for service in evidence.group.services]
    return tuple(
        name
        for name in names
        if min(ballot.unanswered_seconds(name), heard_seconds) >= patience_seconds
        and (open_since is not None or not evidence.brake.holds(name))
    )


def _in_vain(record: GroupRecord, services: tuple[str, ...]) -> str:
    return (
        f"clients of {' and '.join(services)} got no answer from {record.previous} either, and {record.active} "
        f"was made active for that: start the service anew at {record.active} (by hand: tunnelswitch switchover)"
    )


def _wished(evidence: Evidence, record: GroupRecord, now: float) -> Verdict | None:
    """Whoever asks goes on asking: a wish that nobody repeats is not carried out when nobody expects it any more."""
    wish = evidence.wish
    if wish is None or now - evidence.wished_at > WISH_SECONDS:
        return None
    if wish.stamp != record.stamp or wish.target != evidence.group.other(record.active):
        return None
    return Verdict(Reason.OPERATOR, (f"{wish.asked_by} asks for {wish.target}",), consent_needed=True)


def _drained(evidence: Evidence, record: GroupRecord) -> Verdict | None:
    target = evidence.group.other(record.active)
    if record.active not in record.drained or target in record.drained:
        return None
    return Verdict(Reason.OPERATOR, (f"{record.active} is drained",), consent_needed=True)


def half_seen(evidence: Evidence, record: GroupRecord, now: float) -> str | None:
    """What only some see: bus silent with the path up, or both gone for this gateway and no majority that agrees.
    A fault to report, never one to move on."""
    seen = evidence.seen(record.active, now)
    if seen is None or seen.bus is not Bus.SILENT:
        return None
    if seen.path is Path.UP:
        return f"no heartbeats from {record.active} while its path is up: its agent or its bus has failed"
    if seen.path is Path.DOWN and min(seen.bus_seconds, seen.path_seconds) >= ALONE_SECONDS:
        return (
            f"{evidence.gateway} has lost {record.active}, path and bus, and too few of the other voters have: "
            "its clients wait until it is back or a majority has lost it"
        )
    return None
