"""The stories that an operator cares about, played in virtual time: what each part does, and what clients meet.

Each is a function whose docstring says what happens and what to expect; `told` makes a page of it. The pages are in
docs/scenarios/, and a test plays them again: a change of behaviour shows there as a change of the text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace

from tunnelswitch.core.facts import Applied, DrainRequest, Handover, MoveRequest, Path, Proof
from tunnelswitch_lab.simulator.names import switcher_at
from tunnelswitch_lab.simulator.network import both_ways
from tunnelswitch_lab.simulator.running import unlogged
from tunnelswitch_lab.simulator.setup import GROUP, Setup
from tunnelswitch_lab.simulator.trace import line
from tunnelswitch_lab.simulator.world import World

Scenario = Callable[[World], None]
SEVERAL_GATEWAYS = {"switcher-dead": ("gateway", "branch")}
SCENARIOS: dict[str, Scenario] = {}
QUIET_SECONDS = 0.5
REPEATED = (Applied, Proof, Handover)  # said again and again while they matter, since a message may be lost
SERVICE, SWITCHER = GROUP.services[0].name, switcher_at("gateway")


def scenario(play: Scenario) -> Scenario:
    """Put a function on the list; its name is the page's."""
    SCENARIOS[play.__name__.replace("_", "-")] = play
    return play


def told(name: str) -> str:
    """The page of one scenario: title, story, what happened, who answered when."""
    play = SCENARIOS[name]
    lines: list[str] = []
    said: set[tuple[str, object]] = set()

    def hear(now: float, who: str, what: object) -> None:
        if isinstance(what, REPEATED):
            if (who, what) in said:
                return
            said.add((who, what))
        lines.append(line(now, who, what))

    with unlogged():
        gateways = SEVERAL_GATEWAYS.get(name, GROUP.gateways)
        world = World(Setup(group=replace(GROUP, hysteresis_seconds=1.0, gateways=gateways)), told=hear)
        world.start()
        world.run(QUIET_SECONDS)
        play(world)
    title = name.replace("-", " ").capitalize()
    answered = ", then ".join(
        f"{' and '.join(sorted(sites)) or 'nobody'} from {at - world.answered_by[0][0]:.3f} s"
        for at, sites in world.answered_by
    )
    story = inspect.getdoc(play) or ""
    trace = "\n".join(f"    {text}" for text in lines)
    return f"# {title}\n\n{story}\n\nClients were answered by: {answered}.\n\n{trace}\n"


def _move(world: World, target: str) -> None:
    world.bus.publish("operator", "gateway", MoveRequest(GROUP.name, world.record.stamp, target, "alice"))


def _drain(world: World, site: str, *, drained: bool) -> None:
    request = DrainRequest(GROUP.name, world.record.stamp, site, drained, "alice")
    world.bus.publish("operator", "gateway", request)


@scenario
def host_loss(world: World) -> None:
    """The primary site loses power. Two of three voters see its path down and its bus silent; the standby takes over,
    and the gateway's tunnel follows. When the site is back it closes its end and becomes the standby."""
    world.lose_host("primary")
    world.run(1.0)
    world.boot("primary")
    world.run(2.0)


@scenario
def service_crash(world: World) -> None:
    """The protected process dies and its host lives. The agent beside it proves that this very run has ended: nobody
    waits for a majority or for silence."""
    world.hypervisors[SERVICE].crash("primary")
    world.run(1.5)


@scenario
def primary_isolated(world: World) -> None:
    """The active site is cut off from everybody. It cannot know that it is deposed, so it closes itself when no
    majority has been in touch for `fence_after`; by then the others have moved the clients. Nobody meets two copies."""
    world.isolate("primary")
    world.run(1.5)
    world.rejoin("primary")
    world.run(2.0)


@scenario
def secondary_isolated(world: World) -> None:
    """The standby's site is cut off. Clients notice nothing; the record says that nobody stands by, so that nothing is
    promoted that is behind. When the site is back it sees that its copy has been left and that no record names it: it
    ends it, and a fresh standby syncs."""
    world.isolate("secondary")
    world.run(1.5)
    world.rejoin("secondary")
    world.run(6.5)


@scenario
def gateway_isolated(world: World) -> None:
    """The gateway is cut off from both servers. Its clients reach nobody and no move could help them; the servers see
    each other, so nothing moves, and service is back with the path."""
    world.isolate("gateway")
    world.run(1.5)
    world.rejoin("gateway")
    world.run(2.0)


@scenario
def gateway_restored_from_backup(world: World) -> None:
    """After a failover somebody puts an old database file in the place of the gateway's: it names the old tunnel and
    the old stamp. The gateway comes up dark; the switcher's record is higher than the file, which is brought up to it
    at once, under the guard."""
    world.lose_host("primary")
    world.run(1.0)
    world.restore_ovsdb("gateway", 1)
    world.run(1.0)


@scenario
def bus_gone(world: World) -> None:
    """The bus and the store are gone everywhere. Traffic stays as it is: silence on the bus with the paths up moves
    nobody. (Every process says by log, metric and /healthz that its bus is gone.) A service that dies meanwhile waits
    until a decision can be committed, and then moves at once."""
    world.store.up = False
    for site in world.sites:
        world.bus.stall(site)
    world.run(1.0)
    world.hypervisors[SERVICE].crash("primary")
    world.run(0.5)
    for site in world.sites:
        world.bus.release(site)
    world.store.up = True
    world.run(1.5)


@scenario
def flapping_link(world: World) -> None:
    """The path between the gateway and the primary goes down and up. While heartbeats still come through other sites
    and clients are answered in between, nothing moves: each return is held in doubt for a while."""
    for _ in range(4):
        world.network.say("gateway", "primary", Path.DOWN)
        world.run(0.05)
        world.network.say("gateway", "primary", Path.UP)
        world.run(0.15)
    world.run(1.0)


@scenario
def stale_switcher_wakes_up(world: World) -> None:
    """The switcher is stopped (SIGSTOP) when the primary dies, and the gateway has a second life of it: another process
    decides. When the first one goes on it believes in the old epoch; what it sends fails at the guard, and it learns
    the new one."""
    world.processes[SWITCHER].pause()
    world.lose_host("primary")
    world.run(0.5)
    sleeper = world.processes.pop(SWITCHER)
    world.start(SWITCHER)
    world.run(1.0)
    sleeper.resume()
    world.run(1.0)


@scenario
def double_fault(world: World) -> None:
    """The primary is lost, and right after the failover the copy that took over dies, before there was a new standby.
    Nothing is left that holds the state: nobody is promoted, and the switcher says what is missing."""
    world.lose_host("primary")
    world.run(0.3)
    world.hypervisors[SERVICE].crash("secondary")
    world.run(1.5)


@scenario
def dead_in_both_copies(world: World) -> None:
    """The service hangs, and lives. Its clients get no answer, so the active is asked to hand over; but the standby is
    a copy of it, and hangs as well. Back at the first site a fresh copy of it would be no better, so nothing moves any
    more, and the switcher says what to do. When a person has freed the service, it answers where it is."""
    world.hang(SERVICE, hangs=True)
    world.run(3.0)
    world.hang(SERVICE, hangs=False)
    world.run(1.0)


@scenario
def drain(world: World) -> None:
    """Before maintenance an operator drains the primary. That is written down first; then the active consents by
    closing its end for good under this stamp, which is the proof, and the move is one epoch. The host is switched off,
    and clients notice nothing. It comes back as a standby that nothing moves to, whatever happens, until undrained."""
    _drain(world, "primary", drained=True)
    world.run(1.0)
    world.lose_host("primary")
    world.run(1.0)
    world.boot("primary")
    world.run(2.0)
    world.hypervisors[SERVICE].crash("secondary")
    world.run(0.3)
    _drain(world, "primary", drained=False)
    world.run(1.0)


@scenario
def switcher_dead(world: World) -> None:
    """With two gateways one has lost its switcher. When the primary is lost the other one's switcher decides; the
    gateway without one is brought to the record by its own agent, after a quarter of a second and a confirmed read."""
    world.processes[switcher_at("branch")].kill()
    world.lose_host("primary")
    world.run(2.5)


@scenario
def switchover_during_a_failure(world: World) -> None:
    """An operator asks for a move while the standby's site is cut off. It is refused with the reason; the wish is not
    kept for later, when nobody expects it any more."""
    world.isolate("secondary")
    world.run(0.6)
    _move(world, "secondary")
    world.run(0.6)
    world.rejoin("secondary")
    world.run(2.0)


@scenario
def promote_fails(world: World) -> None:
    """An operator moves the service, and the standby cannot take over. It was never exposed, so the old copy, closed
    and not yet destroyed, gets its clients back in a new epoch."""
    world.hypervisors[SERVICE].fault = "fails"
    _move(world, "secondary")
    world.run(2.0)


@scenario
def link_between_servers_cut(world: World) -> None:
    """The checkpoints' way between the servers is cut; both still reach the gateway. Nothing moves on that alone: the
    active goes on unprotected and says so. When the way is back, the standby that was left makes room for a fresh
    one."""
    world.network.cut(both_ways("primary", "secondary"))
    world.links_changed()
    world.run(1.5)
    world.network.mend(both_ways("primary", "secondary"))
    world.links_changed()
    world.run(6.5)
