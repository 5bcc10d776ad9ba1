"""The bus between the sites: subscriptions like the real processes', and everything a bus can do wrong.

It loses, doubles, delays and reorders by a generator of its own, keeps a site's messages back and lets them come in a
burst (a client that reconnects), and says again what was said. A site can be deaf to one kind of message: each kind is
a subscription of its own, and one that falls behind is dropped by itself.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable

from tunnelswitch.bus.speech import SERVER_HEARS, SITE_HEARS, SWITCHER_HEARS
from tunnelswitch.bus.subjects import BY_NAME
from tunnelswitch.core import facts
from tunnelswitch.core.actions import Message
from tunnelswitch_lab.simulator.network import Network
from tunnelswitch_lab.simulator.process import Process
from tunnelswitch_lab.simulator.timeline import Timeline

REMEMBERED = 400


def _types(kinds: Iterable[str]) -> frozenset[type]:
    """The store's republished record arrives as an Epoch, as the adapter makes of it."""
    return frozenset(facts.Epoch if kind == "record" else BY_NAME[kind].message_type for kind in kinds)


HEARS = {"server": _types(SERVER_HEARS), "site": _types(SITE_HEARS), "switcher": _types(SWITCHER_HEARS)}


class SimulatedBus:
    """Pub/sub with one hop: a message arrives where the underlay carries it when it is sent.

    Args:
        delay_seconds: of a message when nothing is wrong; by way in `way_seconds` if named there.
    """

    def __init__(self, timeline: Timeline, network: Network, delay_seconds: float, seed: int) -> None:
        self.loss = self.doubled = self.shuffle_seconds = 0.0
        self.delay_seconds = delay_seconds
        self.stalled: dict[str, list[tuple[str, Message]]] = {}
        self.deaf: Counter[tuple[str, type]] = Counter()
        self.bad_until = float("-inf")
        self.on_said: Callable[[str, Message], None] = lambda sender, message: None
        self.said: deque[tuple[float, str, Message]] = deque(maxlen=REMEMBERED)
        self._timeline = timeline
        self._network = network
        self._random = random.Random(seed)
        self._hearers: dict[type, dict[str, tuple[str, ...]]] = {}
        self._processes: dict[str, Process] = {}

    def subscribe(self, process: Process, role: str) -> None:
        """`process` (its new start) hears what its role does."""
        self._processes[process.name] = process
        for message_type in HEARS[role]:
            by_site = self._hearers.setdefault(message_type, {})
            names = by_site.get(process.site, ())
            if process.name not in names:
                by_site[process.site] = (*names, process.name)

    def publish(self, sender: str, site: str, message: Message) -> None:
        """From a process at `site`; nothing comes back to the sender itself."""
        self.said.append((self._timeline.now, sender, message))
        self.on_said(sender, message)
        if site in self.stalled:
            self.stalled[site].append((sender, message))
            return
        self._spread(sender, site, message)

    def _spread(self, sender: str, site: str, message: Message) -> None:
        ways = list(self._hearers.get(type(message), {}).items())
        if self._network.disturbed:
            ways = [(target, names) for target, names in ways if self._network.carries(site, target)]
        if not (self.loss or self.doubled or self.shuffle_seconds):
            self._timeline.after(self.delay_seconds, self._arrive, sender, ways, message)
            return
        for target, names in ways:
            for _ in range(1 + (self._random.random() < self.doubled)):
                if site == target or self._random.random() >= self.loss:
                    delay = self.delay_seconds + self._random.random() * self.shuffle_seconds
                    self._timeline.after(delay, self._arrive, sender, ((target, names),), message)

    def _arrive(self, sender: str, ways: Iterable[tuple[str, tuple[str, ...]]], message: Message) -> None:
        for target, names in ways:
            if target in self.stalled:
                self.stalled[target].append((sender, message))
            elif not self.deaf or not self.deaf[target, type(message)]:
                for name in names:
                    if name != sender:
                        self._processes[name].post(message)

    def stall(self, site: str) -> None:
        """What goes to and from the site is kept back."""
        self.stalled.setdefault(site, [])

    def release(self, site: str) -> None:
        """Everything kept back comes at once, in order."""
        self.bad_until = max(self.bad_until, self._timeline.now)
        for sender, message in self.stalled.pop(site, []):
            process = self._processes.get(sender)
            if process is not None and process.site == site:
                self._spread(sender, site, message)
            else:
                names = self._hearers.get(type(message), {}).get(site, ())
                self._timeline.after(0.0, self._arrive, sender, ((site, names),), message)

    def replay(self, seconds: float) -> None:
        """Everything said in the last so many seconds is said again, to all."""
        for at, sender, message in list(self.said):
            if at >= self._timeline.now - seconds:
                ways = tuple(self._hearers.get(type(message), {}).items())
                self._timeline.after(self.delay_seconds, self._arrive, sender, ways, message)

    def good(self) -> None:
        """Nothing goes wrong any more with what is said from now on."""
        self.bad_until = self._timeline.now + self.shuffle_seconds
        self.loss = self.doubled = self.shuffle_seconds = 0.0

    def was_bad(self, seconds: float) -> bool:
        """May a heartbeat have been lost, or come late, within the last so many seconds?"""
        bad = self.loss or self.doubled or self.shuffle_seconds or self.stalled
        return bool(bad) or self._timeline.now - self.bad_until <= seconds
