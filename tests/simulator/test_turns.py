"""The decisions hold where services are said in turns, as if there were many, and others may know nothing of them."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from tunnelswitch.bus import turns
from tunnelswitch.core import server
from tunnelswitch.core.facts import Heartbeat
from tunnelswitch_lab.simulator.bus import SimulatedBus
from tunnelswitch_lab.simulator.playing import play
from tunnelswitch_lab.simulator.process import Process
from tunnelswitch_lab.simulator.running import unlogged
from tunnelswitch_lab.simulator.schedule import draw

SHORT_FORM = 200


@contextlib.contextmanager
def in_turns() -> Iterator[None]:
    """Every process says and hears its services in turns, however few; its next start does so anew."""
    tellers: defaultdict[tuple[str, str], turns.Teller] = defaultdict(turns.Teller)
    listeners: defaultdict[Process, turns.Listener] = defaultdict(turns.Listener)
    publish, post = SimulatedBus.publish, Process.post

    def say(self: SimulatedBus, sender: str, site: str, message: Any) -> None:
        if isinstance(message, Heartbeat) and message.services:
            message = tellers[sender, message.incarnation].shorten(message)
        publish(self, sender, site, message)

    def hear(self: Process, event: object) -> None:
        post(self, listeners[self].complete(event) if isinstance(event, Heartbeat) else event)

    with contextlib.ExitStack() as stack:
        for where in (turns, server):
            stack.enter_context(patch.object(where, "SERVICES_EVERY_BEAT_MAX", 0))
        stack.enter_context(patch.object(SimulatedBus, "publish", say))
        stack.enter_context(patch.object(Process, "post", hear))
        yield


def test_no_invariant_is_broken_where_services_are_said_in_turns() -> None:
    with unlogged():
        for seed in range(SHORT_FORM):
            with in_turns():
                assert play(draw(seed)) is None, seed
