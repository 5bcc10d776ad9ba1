"""`tunnelswitch reconfigure`: brings a record's voters and gateways to those of the deployment file, one at a time.

Two majorities that differ by one voter have a voter in common; those that differ by two need not. So each change is a
stamp of its own, and the next one waits until a majority holds it (PROTOCOL R1, R3).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from tunnelswitch.config import Deployment
from tunnelswitch.core.facts import GroupRecord, Heartbeat, Reason
from tunnelswitch.core.quorum import quorum
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.errors import CommitRefusedError, RecordMissingError, RefusedError
from tunnelswitch.ports import Epochs
from tunnelswitch.processes.connecting import operator_bus, operator_epochs

READ_SECONDS = 3.0
COMMIT_SECONDS = 3.0
HELD_SECONDS = 10.0
POLL_SECONDS = 0.05
TRIES_MAX = 5
CHANGES_MAX = 64


async def run_reconfigure(
    deployment: Deployment, group: str, *, dark: Collection[str] = (), tell: Callable[[str], object]
) -> None:
    """Change the group's record until it has the file's voters and gateways.

    Args:
        dark: gateways to be removed that surely have no client tunnel any more.

    Raises:
        RefusedError: a gateway may still lead clients somewhere, or no majority holds a change in time.
        EpochStoreError: the store does not answer.
    """
    wanted = next(one for one in deployment.core_groups() if one.name == group)
    marks: dict[str, Stamp] = {}

    def hear(event: object) -> None:
        if isinstance(event, Heartbeat) and group in event.marks:
            marks[event.site] = event.marks[group]

    async with operator_epochs(deployment) as epochs, operator_bus(deployment, ("heartbeat",), hear):
        for _ in range(CHANGES_MAX):
            changed = await _commit_next(epochs, group, wanted.voters, wanted.gateways, dark)
            if changed is None:
                tell(f"{group}: voters {', '.join(wanted.voters)}; gateways {', '.join(wanted.gateways)}")
                return
            tell(f"{group}: {changed.evidence[0]}")
            await _held(changed, marks)


async def _commit_next(
    epochs: Epochs, group: str, voters: tuple[str, ...], gateways: tuple[str, ...], dark: Collection[str]
) -> GroupRecord | None:
    """Commit the next change, or return None if there is none left."""
    for _ in range(TRIES_MAX):
        record, revision = await epochs.read(group, READ_SECONDS)
        if record is None:
            raise RecordMissingError(group)
        changed = next(changes(record, voters, gateways), None)
        if changed is None:
            return None
        leaving = set(record.gateways) - set(changed.gateways) - set(dark)
        if leaving:
            name = min(leaving)
            raise RefusedError(
                f"gateway {name} may still lead clients somewhere",
                f"stop its agent and switcher, run `tunnelswitch darken --site {name}` there, then add --dark {name}",
            )
        try:
            await epochs.commit(changed, revision, COMMIT_SECONDS)
        except CommitRefusedError:
            continue  # somebody else was quicker
        return changed
    raise RefusedError(f"the record of {group} keeps changing", "wait until the group is at rest")


def changes(record: GroupRecord, voters: tuple[str, ...], gateways: tuple[str, ...]) -> Iterator[GroupRecord]:
    """What may be the next record: one voter or gateway more, or one less; additions first. Pure."""
    for field, wanted in (("voters", voters), ("gateways", gateways)):
        present: tuple[str, ...] = getattr(record, field)
        steps = [(site, (*present, site), "added to") for site in wanted if site not in present]
        steps += [
            (site, tuple(one for one in present if one != site), "removed from")
            for site in present
            if site not in wanted
        ]
        for site, after, what in steps:
            yield replace(
                record,
                stamp=record.stamp.rearmed(),
                prev_id=str(record.stamp),
                reason=Reason.OPERATOR,
                evidence=(f"{site} is {what} the {field}",),
                decided_by="reconfigure",
                decided_at=time.time(),
                **{field: after},  # type: ignore[arg-type]
            )


async def _held(record: GroupRecord, marks: dict[str, Stamp]) -> None:
    needed = quorum(len(record.voters))

    def holders() -> list[str]:
        return [voter for voter in record.voters if voter in marks and marks[voter] >= record.stamp]

    try:
        async with asyncio.timeout(HELD_SECONDS):
            while len(holders()) < needed:  # noqa: ASYNC110 - heartbeats come by themselves
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise RefusedError(
            f"{record.stamp} is held by {', '.join(holders()) or 'nobody'}, and {needed} voters have to",
            "start the agents of the voters, then run it again: what is changed stays changed",
        ) from None
