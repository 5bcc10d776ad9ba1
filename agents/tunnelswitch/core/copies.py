"""The local copy of one service, and what its site says of it: role, protection, checkpoints, and what is missing.

A copy is *degraded* when it is protected, but not as it should be: its driver says so, or the last checkpoint is older
than the deployment allows. It may still be promoted; more of its past would be lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tunnelswitch.core.events import Promoted, ServiceSeen
from tunnelswitch.core.facts import CheckpointSeen, GroupRecord, Protection, ServiceStatus
from tunnelswitch.core.runs import names_run
from tunnelswitch.core.topology import Service

WHY_MAX = 200
SPACINGS = 8


@dataclass(slots=True)
class Instance:
    """The local copy of one service. `protected_at`: since when its driver has called it protected; `interrupted_at`:
    when it ceased to last; `confirmed_at`: when the other site first said after that, or once more, that it holds the
    standby of the record; `left_at`: since when its driver has said that its active has left it."""

    service: Service
    seen: ServiceSeen
    checkpoint_sequence: int = 0
    checkpoint_at: float | None = None
    checkpoint_spacings: deque[float] = field(default_factory=lambda: deque(maxlen=SPACINGS))
    protected_at: float | None = None
    interrupted_at: float = float("-inf")
    confirmed_at: float = float("-inf")
    left_at: float | None = None
    exited_run: str = ""
    exited_had_served: bool = False
    busy_until: float = 0.0
    promote_attempts: int = 0
    was_active: bool = False
    promote_seconds: float = 0.0

    @classmethod
    def absent(cls, service: Service) -> Instance:
        """Nothing is known of it yet."""
        return cls(service, ServiceSeen(service.name, "", "stopped", Protection.STOPPED, in_sync=False))

    def saw(self, event: ServiceSeen, now: float) -> None:
        """The driver's word."""
        if event.run != self.seen.run:
            self.promote_attempts, self.was_active = 0, False
            self.checkpoint_sequence, self.checkpoint_at = event.checkpoint_sequence, None
            self.checkpoint_spacings.clear()
            self.left_at = None
        if not event.left:
            self.left_at = None
        elif self.left_at is None:
            self.left_at = now
        if event.protection is not Protection.PROTECTED:
            if self.protected_at is not None:
                self.protected_at, self.interrupted_at = None, now
        elif self.protected_at is None:
            self.protected_at = now
        self.seen = event
        self.was_active |= event.role == "active"

    def may_be_another(self, since: float) -> bool:
        """May the standby have been exchanged since the record was written, which was in force `since` then? It may if
        protection was interrupted, until the other site has confirmed it."""
        return self.interrupted_at >= since and (self.protected_at is None or self.confirmed_at <= self.protected_at)

    @property
    def checkpoint_period_seconds(self) -> float:
        """The longest of the last few; 0 where there were none."""
        return max(self.checkpoint_spacings, default=0.0)

    def took_checkpoint(self, event: CheckpointSeen, now: float) -> None:
        """One was committed."""
        if self.checkpoint_at is not None and event.sequence == self.checkpoint_sequence + 1:
            self.checkpoint_spacings.append(now - self.checkpoint_at)
        self.checkpoint_sequence, self.checkpoint_at = event.sequence, now

    def exited(self, run: str) -> None:
        """The process of this run has ended."""
        if run != self.exited_run:
            self.exited_run, self.exited_had_served = run, self.was_active
        if self.seen.run == run:
            self.seen = ServiceSeen(self.service.name, run, "stopped", Protection.STOPPED, in_sync=False)

    def promoted(self, event: Promoted) -> None:
        """It serves now, and has no standby yet."""
        self.busy_until, self.promote_seconds = 0.0, event.seconds
        seen, self.was_active = self.seen, True
        self.seen = ServiceSeen(event.service, event.run, "active", seen.protection, False)

    def status(self, group: str, now: float, *, gate_open: bool, self_fenced: bool) -> ServiceStatus:
        """For the heartbeat."""
        seen, age = self.seen, 0.0 if self.checkpoint_at is None else now - self.checkpoint_at
        why = self._why(now)
        return ServiceStatus(
            service=self.service.name,
            group=group,
            run=seen.run,
            role=seen.role,
            protection=seen.protection,
            in_sync=seen.in_sync,
            gate_open=gate_open,
            self_fenced=self_fenced,
            checkpoint_sequence=self.checkpoint_sequence,
            checkpoint_age_seconds=age,
            degraded=bool(why) and seen.protection is Protection.PROTECTED,
            progress=seen.progress,
            why=why[:WHY_MAX],
            outgrown=seen.outgrown,
        )

    def _why(self, now: float) -> str:
        """What is missing to a sound protection. The age is in the status: a text that grew would be news each time."""
        limit_seconds = self.service.late_after_seconds
        if self.seen.why or limit_seconds is None or self.protected_at is None:
            return self.seen.why
        since = self.protected_at if self.checkpoint_at is None else max(self.checkpoint_at, self.protected_at)
        return f"no checkpoint for more than {limit_seconds:g} s" if now - since > limit_seconds else ""


def confirm(instances: Mapping[str, Instance], record: GroupRecord, told: Iterable[ServiceStatus], now: float) -> None:
    """The other site's word on its copies: are they the standbys of the record, in sync?"""
    for status in told:
        instance = instances.get(status.service)
        if instance is None or instance.protected_at is None or instance.confirmed_at > instance.protected_at:
            continue  # nothing waits for it, and it is said in every heartbeat
        if status.in_sync and names_run(record.standby_run, status.service, status.run):
            instance.confirmed_at = now
