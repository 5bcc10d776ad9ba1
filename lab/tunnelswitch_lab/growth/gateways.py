"""What one move costs with more gateways, in virtual time: the real decisions, counted instead of clocked.

A machine with a few cores cannot run sixteen gateways' switches and agents and still say anything about time; what they
say to each other and ask of the store is the same in the simulator. Every gateway is a voter, as by default.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tunnelswitch.core.facts import Heartbeat
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.simulator.running import unlogged
from tunnelswitch_lab.simulator.setup import GATEWAYS, GROUP, SERVERS, Setup
from tunnelswitch_lab.simulator.world import World

GATEWAYS_MAX = len(GATEWAYS)
SETTLE_SECONDS = 1.5
LOOK_SECONDS = 0.001
MOVE_SECONDS = 10.0
AFTER_SECONDS = 1.0


def checked_counts(text: str) -> tuple[int, ...]:
    """`1,4,16` as numbers. Raises LabError."""
    counts = [int(word) if word.strip().isdigit() else 0 for word in text.split(",")]
    if any(not 1 <= count <= GATEWAYS_MAX for count in counts):
        raise LabError(f"--gateways {text!r}: write numbers from 1 to {GATEWAYS_MAX}, with commas between")
    return tuple(counts)


def count(gateways: int) -> dict[str, Any]:
    """One group behind so many gateways loses its active host: what is said and asked from then on.

    `messages` and the store's requests are counted until a second after the last gateway's clients are served again,
    heartbeats by the second at rest.
    """
    used = GATEWAYS[:gateways]
    group = replace(GROUP, gateways=used, voters=(*SERVERS, *used))
    with unlogged():
        world = World(Setup(group=group))
        said = _listen(world)
        world.start()
        world.run(SETTLE_SECONDS)
        said.clear()
        world.run(1.0)
        rest = dict(said)
        said.clear()
        world.lose_host(SERVERS[0])
        lost_at = world.now
        while not _served(world, used) and world.now < lost_at + MOVE_SECONDS:
            world.run(LOOK_SECONDS)
        served_seconds = world.now - lost_at if _served(world, used) else None
        world.run(AFTER_SECONDS)
    heartbeats = said.pop(Heartbeat.__name__, 0)
    asked = {name: said.pop(name, 0) for name in ("read", "commit")}
    return {
        "gateways": gateways,
        "served_seconds": None if served_seconds is None else round(served_seconds, 3),
        "heartbeats_per_second_at_rest": rest.get(Heartbeat.__name__, 0),
        "reads_per_second_at_rest": rest.get("read", 0),
        "heartbeats": heartbeats,
        "messages": sum(said.values()),
        "reads": asked["read"],
        "commits": asked["commit"],
        "by_kind": dict(said.most_common()),
    }


def _served(world: World, gateways: tuple[str, ...]) -> bool:
    return {one.gateway for one in world.reached if one.site == SERVERS[1]} == set(gateways)


def _listen(world: World) -> Counter[str]:
    counted: Counter[str] = Counter()
    hear = world.bus.on_said

    def said(sender: str, message: Any) -> None:
        counted[type(message).__name__] += 1
        hear(sender, message)

    def counting(name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any) -> Any:
            counted[name] += 1
            return ask(*args)

        return asked

    world.bus.on_said = said
    for name in ("read", "commit"):
        setattr(world.store, name, counting(name, getattr(world.store, name)))
    return counted


def line(told: dict[str, Any]) -> str:
    """One count for people."""
    served = told["served_seconds"]
    return (
        f"{told['gateways']:>3} gateways, in virtual time: "
        + (f"all served after {served * 1e3:.0f} ms; " if served is not None else "not all served; ")
        + f"the move took {told['messages']} messages, {told['commits']} commits and {told['reads']} reads; "
        f"at rest {told['heartbeats_per_second_at_rest']} heartbeats/s, {told['reads_per_second_at_rest']} reads/s"
    )
