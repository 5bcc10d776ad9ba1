"""The copies of one service at the server sites, and what a driver does to them.

A promotion can fail, hang, succeed and yet say that it failed, or succeed long after its caller gave up. The link of
checkpoints (T1) follows the underlay between the servers, and can break by itself. A copy out of sync becomes a standby
again only as a new run, once somebody has ended it; a copy that held the role never does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunnelswitch.core import events
from tunnelswitch.core.actions import Fence, Promote, TakeCheckpoint
from tunnelswitch.core.facts import Protection
from tunnelswitch_lab.simulator.process import Answer
from tunnelswitch_lab.simulator.timeline import Timeline

Promotion = events.Promoted | events.PromotionFailed
Fencing = events.FenceDone | events.FenceFailed
Taking = events.CheckpointTaken | events.CheckpointFailed
PROMOTE_FAULTS = ("fails", "hangs", "half", "late")
LATE_SECONDS = 1.2


@dataclass(slots=True)
class Copy:
    """One copy. `synced_with` is the run whose state it holds (its own for one that serves). `behind`: that run has
    told clients things since, of which this copy knows nothing. `outgrown`: its process nears its memory limit."""

    service: str
    site: str
    run: str
    role: str
    synced_with: str
    peer_lost: bool = False
    behind: bool = False
    outgrown: bool = False

    @property
    def alive(self) -> bool:
        return self.role != "stopped"


class Hypervisor:
    """Both copies of one service.

    Attributes:
        fault: what goes wrong with promotions, one of PROMOTE_FAULTS.
        revives: can a copy begin again as a standby?
        hangs: lives and answers nobody, and every checkpoint of it is as bad.
        on_fence, on_promote: hear of every copy that is stopped for good, or takes the role, and by which action.
        linked: does the link of checkpoints carry anything now?
        holds_until: by run of a standby, up to when it has all that the active did, by a checkpoint that was asked for.

    Args:
        tell: (site, event) to the agent there.
        changed: called after anything that clients could see.
    """

    def __init__(
        self,
        service: str,
        servers: tuple[str, str],
        timeline: Timeline,
        seconds: float,
        tell: Callable[[str, object], None],
        changed: Callable[[], None],
    ) -> None:
        self.service = service
        self.servers = servers
        primary, secondary = servers
        first = f"{service}-p0"
        self.copies = {
            primary: Copy(service, primary, first, "active", first),
            secondary: Copy(service, secondary, f"{service}-s0", "standby", first),
        }
        self.fault: str | None = None
        self.revives = True
        self.hangs = False
        self.on_fence: Callable[[Copy, Fence], None] = lambda copy, action: None
        self.on_promote: Callable[[Copy, Promote], None] = lambda copy, action: None
        self.linked: Callable[[], bool] = lambda: True
        self.holds_until: dict[str, float] = {}
        self._checkpoints = 0
        self._parents = {copy.run: copy.synced_with for copy in self.copies.values() if copy.run != copy.synced_with}
        self._timeline = timeline
        self._seconds = seconds
        self._tell = tell
        self._changed = changed
        self._runs = 0

    def other(self, site: str) -> Copy:
        return self.copies[self.servers[1] if site == self.servers[0] else self.servers[0]]

    def ancestors(self, run: str) -> list[str]:
        """The runs whose state `run` goes on from, the nearest first."""
        found = []
        while run in self._parents:
            run = self._parents[run]
            found.append(run)
        return found

    def seen(self, site: str) -> events.ServiceSeen:
        """The driver's word on the copy at `site`."""
        copy, other = self.copies[site], self.other(site)
        linked = other.alive and not copy.peer_lost and other.role != copy.role
        if copy.role == "active":
            protection = Protection.PROTECTED if linked else Protection.UNPROTECTED
        else:
            protection = Protection.PROTECTED if copy.alive else Protection.STOPPED
        in_sync = protection is Protection.PROTECTED
        outgrown, left = copy.alive and copy.outgrown, copy.role == "standby" and copy.peer_lost
        return events.ServiceSeen(self.service, copy.run, copy.role, protection, in_sync, outgrown=outgrown, left=left)

    def say(self) -> None:
        for site in self.servers:
            self._tell(site, self.seen(site))

    # ------------------------------------------------------------------ the driver

    def promote(self, site: str, action: Promote) -> Answer[Promotion]:
        answer: Answer[Promotion] = Answer()
        failed = events.PromotionFailed(action.service, "it would not start")
        fault = self.fault
        if fault in (None, "half"):
            self._timeline.after(self._seconds, self._promote, site, action, answer, failed if fault else None)
        elif fault == "late":
            self._timeline.after(action.deadline_seconds + LATE_SECONDS, self._promote, site, action, answer, failed)
        if fault == "fails":
            self._timeline.after(self._seconds, answer.set, failed)
        else:
            self._timeline.after(action.deadline_seconds, answer.set, failed)
        return answer

    def _promote(self, site: str, action: Promote, answer: Answer[Promotion], instead: Promotion | None) -> None:
        copy = self.copies[site]
        if not copy.alive or copy.run != action.run:
            answer.set(events.PromotionFailed(self.service, "it is gone"))
            return
        if copy.role != "active":
            self.on_promote(copy, action)
            copy.role = "active"
            self._changed()
            self._tell(site, self.seen(site))
        answer.set(instead or events.Promoted(self.service, copy.run, self._seconds))

    def checkpoint(self, site: str, action: TakeCheckpoint, asked_at: float) -> Answer[Taking]:
        """`asked_at` is by the clock of the site's agent."""
        answer: Answer[Taking] = Answer()
        self._timeline.after(self._seconds, self._checkpoint, site, action, self._timeline.now, asked_at, answer)
        late = events.CheckpointFailed(action.service, action.request, "none in time")
        self._timeline.after(action.deadline_seconds, answer.set, late)
        return answer

    def _checkpoint(
        self, site: str, action: TakeCheckpoint, began_at: float, asked_at: float, answer: Answer[Taking]
    ) -> None:
        copy, other = self.copies[site], self.other(site)
        if copy.run != action.run or copy.role != "active" or self.seen(site).protection is not Protection.PROTECTED:
            answer.set(events.CheckpointFailed(action.service, action.request, "it has no standby"))
        elif self.linked():
            self._checkpoints += 1
            self.holds_until[other.run] = began_at
            answer.set(events.CheckpointTaken(action.service, action.request, self._checkpoints, asked_at))

    def allow_output(self, site: str, allowed: bool) -> None:
        """Output that waits for a checkpoint may leave without one. The driver knows by itself while there is a standby
        that takes them."""
        copy, other = self.copies[site], self.other(site)
        if allowed and copy.role == "active" and not self.seen(site).in_sync and other.synced_with == copy.run:
            other.behind = True

    def fence(self, site: str, action: Fence) -> Answer[Fencing]:
        answer: Answer[Fencing] = Answer()
        if self.copies[site].run == action.run:
            self.on_fence(self.copies[site], action)
        self._timeline.after(self._seconds, self._fence, site, action.run, answer)
        return answer

    def _fence(self, site: str, run: str, answer: Answer[Fencing]) -> None:
        if self.copies[site].run == run:
            self.crash(site)
        answer.set(events.FenceDone(self.service, run))

    # ------------------------------------------------------------------ faults

    def crash(self, site: str) -> None:
        copy = self.copies[site]
        if copy.alive:
            copy.role = "stopped"
            self._changed()
            self._tell(site, events.RunExited(self.service, copy.run))
            self._tell(self.other(site).site, self.seen(self.other(site).site))

    def power_lost(self, site: str) -> None:
        """Nobody is left at the site to see the copy end."""
        self.copies[site].role = "stopped"
        self._changed()
        self._tell(self.other(site).site, self.seen(self.other(site).site))

    def lose_checkpoints(self) -> None:
        for copy in self.copies.values():
            copy.peer_lost = True
        self.say()

    def revive(self, site: str) -> bool:
        """A stopped copy begins again as a standby of the other one, as a new run."""
        copy, other = self.copies[site], self.other(site)
        if not self.revives or copy.alive or other.role != "active":
            return False
        self._runs += 1
        copy.run, copy.role, copy.synced_with = f"{self.service}-{site[0]}{self._runs}", "standby", other.run
        copy.peer_lost = other.peer_lost = copy.behind = False
        self._parents[copy.run] = other.run
        self.say()
        return True
