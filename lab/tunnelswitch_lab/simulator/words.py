"""What sites say of each other has to be so, or to have been so a moment ago: judged when it is said.

A heartbeat is an act like any other, and decisions rest on it. One that says itself that its process ran late is no
word: nobody may count it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunnelswitch.core.detector import LATE_FRACTION
from tunnelswitch.core.facts import Bus, Heartbeat, Vote
from tunnelswitch.core.stamp import Stamp
from tunnelswitch_lab.simulator.names import switcher_at

if TYPE_CHECKING:
    from tunnelswitch_lab.simulator.invariants import Judge

# How long a voter's word counts once it has come, and how old it may be when it comes late.
BALLOT_WINDOWS = 2
LATE_WINDOWS = 1
# A site that was silent is called alive for one window, widened or not; its last word may have been as old; and a sleep
# of up to half of it makes nobody late.
ALIVE_CEILINGS = 2.5
SLACK_SECONDS = 0.05
NEVER = float("-inf")


class Words:
    """What was said, and by whom last."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._world = judge.world
        timing = judge.world.setup.timing
        self._window = timing.window_seconds
        self._alive_seconds = ALIVE_CEILINGS * max(timing.longest_window_seconds, self._window) + SLACK_SECONDS
        self._spoke_at: dict[str, float] = {}
        self._voted_on: dict[tuple[str, str], Stamp] = {}
        self._down: dict[str, tuple[float, str]] = {}
        self._unsaid_at: dict[str, float] = {}

    def said(self, beat: Heartbeat) -> None:
        """A site's heartbeat leaves."""
        now = self._world.now
        for vote in beat.votes:
            self._judge.apply("I1 never back", self._never_back(beat, vote))
            if vote.down and not beat.late:
                self._judge.apply("I4 true votes", self._true_vote(beat.site, vote))
                self._down[beat.site] = (now, str(vote.stamp))
                self._unsaid_at.pop(beat.site, None)
            else:
                self._unsaid_at.setdefault(beat.site, now)
        if not beat.late:
            self._judge.apply("I4 alive means heard", self._alive(beat))
        self._spoke_at[beat.site] = now

    def said_down(self, stamp: str, decider: str, sent_at: float) -> set[str]:
        """Whose word that the active is down, under `stamp`, the switcher at `decider` may go by at that moment: said
        not long before, and not taken back since in a way that it must have heard."""
        longest = (BALLOT_WINDOWS + LATE_WINDOWS) * self._window
        slept = self._world.now - self._world.mute_until.get(switcher_at(decider), NEVER) <= longest
        windows = BALLOT_WINDOWS + LATE_WINDOWS * (slept or self._world.bus.was_bad(longest))
        oldest = sent_at - windows * self._window - SLACK_SECONDS
        return {
            site
            for site, (at, under) in self._down.items()
            if under == stamp and at >= oldest and not self._taken_back(site, decider, sent_at)
        }

    def _taken_back(self, site: str, decider: str, sent_at: float) -> bool:
        world, at = self._world, self._unsaid_at.get(site)
        if at is None or at + world.setup.delays.bus >= sent_at:
            return False
        since = world.now - at
        lost = world.bus.was_bad(since) or world.network.silent_lately(site, decider, since)
        return not lost and world.mute_until.get(switcher_at(decider), NEVER) < at

    # ------------------------------------------------------------------ rules

    def _never_back(self, beat: Heartbeat, vote: Vote) -> str | None:
        key = (beat.incarnation, vote.group)
        known = self._voted_on.get(key)
        self._voted_on[key] = vote.stamp
        if known is None or known is vote.stamp or known <= vote.stamp:
            return None
        return f"{beat.site} votes under {vote.stamp}, and had known {known}"

    def _alive(self, beat: Heartbeat) -> str | None:
        since = self._world.now - self._alive_seconds
        if self._world.mute_until.get(beat.site, NEVER) > since:
            return None  # it has slept, and counts others' silence from when it woke
        for seen in beat.observations:
            if seen.bus is Bus.ALIVE and self._spoke_at.get(seen.subject, NEVER) < since:
                return f"{beat.site} says that {seen.subject} is alive, which has said nothing for long"
        return None

    def _true_vote(self, site: str, vote: Vote) -> str | None:
        """Path down and bus silent, both seen for a window under the stamp, and neither long over."""
        world, window = self._world, self._window
        age = world.now - self._judge.committed_at.get(vote.stamp, NEVER)
        if age < window * 0.99:
            return f"{site} says that {vote.subject} is down under {vote.stamp}, which is {age:.3f} s old"
        if world.switches[site].up and not world.network.down_lately(site, vote.subject, window):
            return f"{site} says that {vote.subject} is down, and its path is up"
        if not self._dozed(site) and not self.could_be_silent(vote.subject, site, 2 * window):
            return f"{site} says that {vote.subject} is down, whose heartbeats reach it"
        return None

    def _dozed(self, site: str) -> bool:
        """Has it just slept, and for so little that it need not call itself late? Its clock may have told it of silence
        before its sockets told it of heartbeats."""
        world, interval = self._world, self._world.setup.timing.interval_seconds
        woke_at = world.mute_until.get(site, NEVER)
        short = world.processes[site].slept_seconds <= LATE_FRACTION * self._window + interval
        return short and world.now - woke_at <= interval

    def could_be_silent(self, source: str, target: str, seconds: float) -> bool:
        """May heartbeats of `source` have been missing at `target` within the last so many seconds?"""
        world = self._world
        process = world.processes[source]
        return (
            not process.alive
            or process.paused
            or world.now - world.mute_until.get(source, NEVER) <= seconds
            or world.bus.was_bad(seconds)
            or world.network.silent_lately(source, target, seconds)
        )
