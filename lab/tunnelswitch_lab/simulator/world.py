"""A deployment in virtual time: the real machines with the real pump and executor, and simulated parts around them.

`invariants` judges after every step in which something changed that clients could see. What goes wrong is in `faults`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tunnelswitch.core import actions, events, facts
from tunnelswitch.core.facts import GroupRecord, Path
from tunnelswitch.core.stamp import Stamp
from tunnelswitch_lab.simulator.assembly import first_record, lay_tunnels, machine_of, role_of
from tunnelswitch_lab.simulator.bus import SimulatedBus
from tunnelswitch_lab.simulator.bystanders import Clients, Watchdogs
from tunnelswitch_lab.simulator.fabric import Fabric, Reached
from tunnelswitch_lab.simulator.hypervisor import Copy, Hypervisor
from tunnelswitch_lab.simulator.invariants import REFUSALS, Judge
from tunnelswitch_lab.simulator.names import site_of, switcher_at
from tunnelswitch_lab.simulator.network import Network, around
from tunnelswitch_lab.simulator.ports import BusPort, EpochsPort
from tunnelswitch_lab.simulator.process import Clock, Process
from tunnelswitch_lab.simulator.setup import Setup
from tunnelswitch_lab.simulator.store import SimulatedStore
from tunnelswitch_lab.simulator.switches import Switch, Taken
from tunnelswitch_lab.simulator.timeline import START_SECONDS, Timeline

CHECKPOINTS_LOST_SECONDS = 0.4
RESYNC_SECONDS = 0.7
Told = Callable[[float, str, object], None]


class World:
    """All sites, started as they would be found in the midst of good times: the standby in sync, the preferred active.

    Args:
        told: sees everything that is published and noted, for a trace.
        fresh: begin as `tunnelswitch init` leaves it instead: a record without a standby, no tunnel anywhere.
    """

    def __init__(
        self, setup: Setup | None = None, seed: int = 0, *, told: Told | None = None, fresh: bool = False
    ) -> None:
        self.setup = setup = setup or Setup()
        self.group = group = setup.group
        self.sites = setup.sites
        self.timeline = timeline = Timeline()
        self.random = random.Random(seed)
        self.told = told
        delays = setup.delays
        self.network = Network(timeline, setup.sites, self._bfd_seconds, self._path_changed)
        self.bus = SimulatedBus(timeline, self.network, delays.bus, seed + 1)
        self.store = SimulatedStore(timeline, self.network, setup.replicas, delays, seed + 2)
        self.store.on_commit = self._committed
        self.bus.on_said = self._said
        self.switches = {site: Switch(site, timeline, delays.commit, delays.follow) for site in setup.sites}
        self.hypervisors = {
            service.name: Hypervisor(
                service.name, group.servers, timeline, delays.driver, self._tell_agent, self._changed
            )
            for service in group.services
        }
        for hypervisor in self.hypervisors.values():
            hypervisor.linked = lambda: self.network.connected(*group.servers)
        self.fabric = Fabric(group, self.network, self.switches, self.hypervisors)
        self.clocks = {site: self._clock(site) for site in setup.sites}
        self.processes: dict[str, Process] = {}
        self.reached: frozenset[Reached] = frozenset()
        self.answered_by: list[tuple[float, frozenset[str]]] = []
        self.complaints: set[Stamp] = set()
        self.healed = False
        self.mute_until: dict[str, float] = {}
        self.on_move: Callable[[], None] = lambda: None
        self.gone: set[str] = set()
        self.started_at: dict[str, float] = {}
        self._starts = 0
        self._begin(fresh)
        self.judge = Judge(self)
        for switch in self.switches.values():
            switch.on_taken, switch.on_change, switch.on_followed = self._taken, self._plane_changed, self._changed
        self.store.on_sent = self.judge.sent
        for hypervisor in self.hypervisors.values():
            hypervisor.on_fence, hypervisor.on_promote = self.judge.fencing, self.judge.promoting
        self._clients = Clients(self)
        timeline.after(RESYNC_SECONDS, self._resync)
        self._changed()
        if setup.watchdogs:
            Watchdogs(self)

    def _begin(self, fresh: bool) -> None:
        record = first_record(self, fresh=fresh)
        self.store.history[self.group.name] = [(record, 1)]
        if not fresh:
            lay_tunnels(self, record)
        if not self.setup.protected:
            for hypervisor in self.hypervisors.values():
                hypervisor.copies[self.group.standby].role = "stopped"

    def _clock(self, site: str) -> Clock:
        offset = 10.0 + self.random.random() * 1e5
        clock = Clock(self.timeline, self.setup.clock_rates.get(site, 1.0), offset)
        clock.offset -= (self.timeline.now - START_SECONDS) * clock.rate
        return clock

    # ------------------------------------------------------------------ processes

    @property
    def names(self) -> tuple[str, ...]:
        """Of every process."""
        return (*self.sites, *map(switcher_at, self.group.gateways))

    def start(self, *names: str) -> None:
        """Start, or start again, processes; all if none is named."""
        for name in names or self.names:
            site = site_of(name)
            if name in self.gone:
                continue
            if name in self.processes:
                self.processes[name].kill()
                self.mute_until[name] = self.now
            self._starts += 1
            process = Process(name, site, self.timeline, self.clocks[site])
            machine, plane, drivers = machine_of(self, process, f"i{self._starts}")
            self.processes[name] = process
            self.started_at[name] = self.now
            self.bus.subscribe(process, role_of(self, process))
            process.run(machine, BusPort(self.bus, process), EpochsPort(self.store, site), plane, drivers)
            self._first_look(process)

    def _first_look(self, process: Process) -> None:
        """What the adapters of a process that has just started say first."""
        site = process.site
        if self.switches[site].up:
            self._tell_plane(process)
        if process.name == site:
            for hypervisor in self.hypervisors.values():
                if site in self.group.servers:
                    process.post(hypervisor.seen(site))

    def _tell_plane(self, process: Process) -> None:
        site = process.site
        process.post(self.switches[site].seen())
        if process.name == site:
            for other in self.sites:
                if other != site:
                    process.post(events.PathChanged(other, self.network.bfd(site, other)))

    def _said(self, sender: str, message: actions.Message) -> None:
        if isinstance(message, facts.Heartbeat):
            self.judge.words.said(message)
            return
        if isinstance(message, facts.MoveRequest):
            self.judge.wishes.add((message.stamp, message.target))
        elif isinstance(message, facts.Decision) and message.action in REFUSALS:
            self.complaints.add(message.stamp)
        self.note(sender, message)

    def tell(self, name: str, event: object) -> None:
        """Feed one event to a process, if it lives."""
        if name in self.processes:
            self.processes[name].post(event)

    def at_site(self, site: str) -> list[Process]:
        return [process for process in self.processes.values() if process.site == site]

    # ------------------------------------------------------------------ time

    @property
    def now(self) -> float:
        return self.timeline.now

    def run(self, seconds: float) -> None:
        """Let virtual time pass. Raises BrokenRuleError as soon as an invariant does not hold."""
        self.timeline.run(self.timeline.now + seconds)

    def _stepped(self) -> None:
        """Something changed that clients could see."""
        reached = self.fabric.reached()
        if reached != self.reached or not self.answered_by:
            self._note_reached(reached)
        self.judge.state()

    def _note_reached(self, reached: frozenset[Reached]) -> None:
        self.reached = reached
        answering = self._answering(reached)
        sites = frozenset(one.site for one in answering)
        if not self.answered_by or self.answered_by[-1][1] != sites:
            self.answered_by.append((self.now, sites))
            silent = "".join(f"{one.site}, which does not answer" for one in reached - answering)
            self.note("clients", f"reach {', '.join(sorted(sites)) or silent or 'nobody'}")
        self._clients.answer(answering)
        if answering:
            self.judge.answered()

    def _answering(self, reached: frozenset[Reached]) -> frozenset[Reached]:
        return frozenset(one for one in reached if not self.hypervisors[one.service].hangs)

    def note(self, who: str, what: object) -> None:
        if self.told is not None:
            self.told(self.now, who, what)

    # ------------------------------------------------------------------ what happens by itself

    def _changed(self) -> None:
        self.timeline.afterwards(self._stepped)

    def _tell_agent(self, site: str, event: object) -> None:
        self.tell(site, event)

    def _bfd_seconds(self, site: str, other: str) -> float:
        """As in production: the multiplier follows the window of the site's agent, or stays as it last was."""
        timing = self.setup.timing
        multiplier = round(timing.window_seconds / timing.interval_seconds)
        if site in self.processes:
            machine: Any = self.processes[site].machine
            multiplier = machine.member.detector.multiplier(other, multiplier)
        return timing.interval_seconds * multiplier

    def _path_changed(self, site: str, other: str, path: Path) -> None:
        if self.switches[site].up:
            self.tell(site, events.PathChanged(other, path))

    def _plane_changed(self, site: str) -> None:
        if self.switches[site].up:
            for process in self.at_site(site):
                process.post(self.switches[site].seen())

    def _taken(self, taken: Taken) -> None:
        if self.told is not None:
            what = f"{taken.stamp} {sorted(taken.present)} (had {taken.before} {sorted(taken.was_present)})"
            self.note(f"OVSDB of {taken.site}", f"takes {what}")
        self.judge.taken(taken)
        self._changed()

    def _committed(self, before: GroupRecord, after: GroupRecord) -> None:
        if self.told is not None:
            run = f"run {after.active_run}, standby {after.standby_run or 'none'}"
            self.note("store", f"{after.stamp} by {after.decided_by}, {after.reason}: active {after.active}, {run}")
        self.judge.committed(before, after)
        self.bus.publish("store", self.store.leader, facts.Epoch(after))
        if after.active != before.active:
            self.on_move()

    def _resync(self) -> None:
        """A copy that has ended is started anew, as a standby, once the servers reach each other."""
        for hypervisor in self.hypervisors.values():
            for site in self.group.servers:
                if self.network.connected(*self.group.servers) and hypervisor.revive(site):
                    self.note(f"{hypervisor.service} at {site}", f"begins as a standby: {hypervisor.copies[site].run}")
        self.timeline.after(RESYNC_SECONDS, self._resync)

    # ------------------------------------------------------------------ hosts

    def lose_host(self, site: str) -> None:
        """Power is gone: processes, copies, links. What OVSDB had is on disk."""
        for process in self.at_site(site):
            process.kill()
        self.network.power(site, on=False)
        self.switches[site].server_ended()
        for hypervisor in self.hypervisors.values():
            if site in hypervisor.copies:
                hypervisor.power_lost(site)
        self._changed()

    def boot(self, site: str) -> None:
        """Power is back: the stamps that OVSDB had are there again, the client tunnels and the copies are not."""
        if site not in self.network.unpowered:
            return
        if site in self.switches:
            self.switches[site].darken()
            self.switches[site].followed = self.switches[site].present
            self.judge.booted(site)
        self.network.power(site, on=True)
        self.network.restarted(site)
        self.clocks[site] = self._clock(site)
        self._changed()
        self.start(*(name for name in self.names if site_of(name) == site))

    def hang(self, service: str, *, hangs: bool) -> None:
        """The service lives and answers nobody, in whichever copy; or does so no more."""
        self.hypervisors[service].hangs = hangs
        self._note_reached(self.reached)

    def links_changed(self) -> None:
        """To be called after a cut or its end."""
        self._changed()
        self.timeline.after(CHECKPOINTS_LOST_SECONDS, self._check_checkpoints)

    def _check_checkpoints(self) -> None:
        if not self.network.connected(*self.group.servers):
            for hypervisor in self.hypervisors.values():
                if not any(copy.peer_lost for copy in hypervisor.copies.values()):
                    hypervisor.lose_checkpoints()

    def site_lives(self, name: str) -> bool:
        return site_of(name) not in self.network.unpowered

    def resume(self, name: str, *, timer_first: bool = False) -> None:
        """A paused process goes on."""
        self.mute_until[name] = self.now
        self.processes[name].resume(timer_first=timer_first)

    def lose_ovsdb(self, site: str) -> None:
        """ovsdb-server ends; vswitchd goes on with what it has."""
        self.switches[site].up = False
        self.switches[site].server_ended()
        for process in self.at_site(site):
            process.post(events.DataPlaneLost("gone"))

    def regain_ovsdb(self, site: str) -> None:
        self.switches[site].up = True
        for process in self.at_site(site):
            self._tell_plane(process)

    def restore_ovsdb(self, site: str, back: int) -> None:
        """Somebody puts an old file in the place of OVSDB's."""
        if self.switches[site].restore(back):
            self.note(f"OVSDB of {site}", f"is restored: {', '.join(map(str, self.switches[site].stored.values()))}")
            self.judge.restored.add(site)
            self.judge.booted(site)

    def heal(self) -> None:
        """Everything works again; what was dead is started."""
        self.note("ALL", "is healed")
        self.healed = True
        self.bus.good()
        for site in list(self.bus.stalled):
            self.bus.release(site)
        store = self.store
        store.up, store.acks_lost, store.slow_seconds = True, False, 0.0
        store.shut_out.clear()
        self.bus.deaf.clear()
        self.network.mend_all()
        for site in list(self.network.unpowered):
            self.boot(site)
        for site, switch in self.switches.items():
            switch.commit_seconds = switch.usual_commit_seconds
            switch.hang(hung=False)
            if not switch.up:
                self.regain_ovsdb(site)
        for hypervisor in self.hypervisors.values():
            hypervisor.fault, hypervisor.revives, hypervisor.hangs = None, True, False
        for name, process in list(self.processes.items()):
            process.crash_in = None
            if process.paused:
                self.resume(name)
            if not process.alive:
                self.start(name)
        self.links_changed()
        self._stepped()

    def settled(self) -> bool:
        """Do all switches follow the record?"""
        stamp = self.record.stamp
        group = self.group.name
        return all(self.switches[site].stored.get(group) == stamp for site in self.fabric.ends)

    # ------------------------------------------------------------------ for whoever tells a story

    @property
    def record(self) -> GroupRecord:
        record, _ = self.store.last(self.group.name)
        assert record is not None
        return record

    @property
    def copies(self) -> dict[str, Copy]:
        """Of the first service."""
        return self.hypervisors[self.group.services[0].name].copies

    def answering_copies(self) -> frozenset[str]:
        """The sites whose copies answer clients now."""
        return frozenset(one.site for one in self._answering(self.fabric.reached()))

    def isolate(self, site: str) -> None:
        self.network.cut(around(site, self.sites))
        self.links_changed()

    def rejoin(self, site: str) -> None:
        self.network.mend(around(site, self.sites))
        self.links_changed()
