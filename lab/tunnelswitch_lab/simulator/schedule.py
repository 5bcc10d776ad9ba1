"""From a seed to a story: the setup of a deployment and a list of faults, each with its time, arguments and length.

Pure data, drawn before anything runs, so that a failing list can be cut down and played again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tunnelswitch.core.member import Timing
from tunnelswitch_lab.simulator.faults import FAULTS, FORGETTING
from tunnelswitch_lab.simulator.setup import GROUP, SERVERS, SERVICES, Delays, Setup
from tunnelswitch_lab.simulator.themes import HUNG, THEMES

# Most bugs show soon, some only when fences and hysteresis have run out.
FAULTY_SECONDS = ((0.5, 1.5), (0.5, 1.5), (0.5, 1.5), (0.5, 1.5), (2.0, 4.5))
LENGTHS = (0.05, 0.2, 0.5, 1.0, 4.0)
CEILING_WINDOWS = 1.25
BEGINS = (0.2, 0.6, 1.5)
SOON = (0.02, 0.2, 1.0)
RATE_SPREAD = 400e-6
SHAPES = {"one": 40, "two": 30, "witness": 12, "four": 12, "pair": 6}
# Parts of all stories: told around a theme; of a service that hangs, which takes the longest ones; faults, bound to the
# first move; deployments with a standby in sync.
THEMED = 0.1
HANGS = 0.01
AFTER_MOVE = 0.15
PROTECTED = 0.85


@dataclass(frozen=True, slots=True)
class Fault:
    """`name` of FAULTS begins at `at` seconds, of the story or since the first move in it, and ends after `lasts`."""

    at: float
    name: str
    args: tuple[object, ...]
    lasts: float
    after_move: bool = False

    def __str__(self) -> str:
        args = ", ".join(map(str, self.args))
        since = " after the first move" if self.after_move else ""
        return f"{self.at:7.3f} s{since}  {self.name}({args}) for {self.lasts:.3f} s"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that decides what happens."""

    seed: int
    setup: Setup
    faults: tuple[Fault, ...]
    healed_at: float


def draw(seed: int) -> Schedule:
    """The schedule of a seed: always the same one."""
    random_ = random.Random(seed)
    told = random_.random()
    theme = random_.choice(THEMES) if told < THEMED else HUNG if told < THEMED + HANGS else None
    setup = _draw_setup(random_, theme.shapes if theme else SHAPES, theme.protected if theme else PROTECTED)
    names = [name for name in FAULTS if name not in FORGETTING and FAULTS[name].possible(setup)]
    weights = [FAULTS[name].weight for name in names]
    faults = [Fault(*themed) for themed in theme.draw(random_, setup)] if theme else []
    number = random_.randint(0, 2) if theme else random_.randint(2, 6)
    faults += [_draw_fault(random_, random_.choices(names, weights)[0], setup) for _ in range(number)]
    forgets = any(fault.name in FORGETTING for fault in faults)
    if not forgets and random_.random() < 0.3:  # PROTOCOL A1: one storage forgets, or none
        faults.append(_draw_fault(random_, random_.choice(FORGETTING), setup))
    faults.sort(key=lambda fault: (fault.after_move, fault.at))
    healed_at = random_.uniform(*(theme.seconds if theme else random_.choice(FAULTY_SECONDS)))
    return Schedule(seed, setup, tuple(faults), healed_at)


def _draw_fault(random_: random.Random, name: str, setup: Setup) -> Fault:
    after_move = random_.random() < AFTER_MOVE
    at = random_.choice(SOON if after_move else BEGINS) * random_.random()
    lasts = random_.choice(LENGTHS) * random_.uniform(0.5, 1.5)
    return Fault(round(at, 4), name, FAULTS[name].draw(random_, setup), round(lasts, 4), after_move)


def _draw_setup(random_: random.Random, shapes: dict[str, int], protected_ratio: float) -> Setup:
    shape = random_.choices(list(shapes), list(shapes.values()))[0]
    gateways: tuple[str, ...] = ("gateway",)
    witnesses: tuple[str, ...] = ()
    voters: tuple[str, ...] = (*SERVERS, "gateway")
    if shape == "two" or (shape == "four" and random_.random() < 0.5):
        gateways = ("gateway", "branch")
    if shape == "witness":
        witnesses, voters = ("witness",), (*SERVERS, "witness")
    elif shape == "four":
        witnesses = () if len(gateways) > 1 else ("witness",)
        voters = (*voters, "branch" if len(gateways) > 1 else "witness")
    elif shape == "pair":
        voters = SERVERS
    group = replace(
        GROUP,
        gateways=gateways,
        voters=voters,
        services=SERVICES[: random_.choices((1, 2), (5, 1))[0]],
        hysteresis_seconds=random_.choice((0.5, 2.0)),
    )
    interval = random_.choices((0.25, 0.1), (60, 1))[0]
    window, fence_windows = 2 * interval, random_.choice((2.0, 4.0))
    # Where windows may not widen far, what waits for the fence waits less, and more of it fits into a story.
    timing = Timing(interval, window, fence_windows * window, 0.4, CEILING_WINDOWS * window)
    delays = Delays(
        bus=random_.choice((0.001, 0.01)),
        store=random_.choice((0.003, 0.03)),
        commit=random_.choice((0.003, 0.02)),
        follow=random_.choice((0.002, 0.03)),
        driver=random_.choice((0.003, 0.05)),
        election=random_.choice((0.2, 0.8)),
        clients_look=0.2,
    )
    sites = (*SERVERS, *gateways, *witnesses)
    rates = {site: 1.0 + random_.uniform(-RATE_SPREAD, RATE_SPREAD) / 2 for site in sites}
    protected = random_.random() < protected_ratio
    return Setup(group, timing, delays, witnesses, rates, protected=protected, watchdogs=len(gateways) > 1)
