"""A site with many services: what costs nothing to say again, and what others make of what it has not said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunnelswitch.core import concluding, events, facts, readiness
from tunnelswitch.core.evidence import Evidence
from tunnelswitch.core.facts import Bus, Heartbeat, Observation, Path, Protection, Reason, ServiceStatus
from tunnelswitch.core.gate import Gate
from tunnelswitch.core.gateway import ANSWERED_SECONDS_MIN, SiteAgent
from tunnelswitch.core.hosting import HostedGroup
from tunnelswitch.core.member import Member, Timing
from tunnelswitch.core.quorum import Ballots
from tunnelswitch.core.server import AGE_MAX_SECONDS, ServerAgent
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.core.topology import Group, Service

TIMING = Timing(interval_seconds=0.05, window_seconds=0.15, fence_after_seconds=1.0, unanswered_seconds=0.3)
VOTERS = ("primary", "secondary", "gateway")
STAMP = Stamp(3, "a")


def groups(count: int, of: int) -> tuple[Group, ...]:
    return tuple(
        Group(
            f"g{number}",
            "primary",
            "secondary",
            ("gateway",),
            VOTERS,
            tuple(Service(f"s{number * of + index}", f"br{number}", 2, 3) for index in range(of)),
        )
        for number in range(count)
    )


def server(count: int, of: int) -> ServerAgent:
    """The primary's agent with all its copies protected, at time 0."""
    hosted = groups(count, of)
    member = Member("primary", "i", hosted, ("secondary", "gateway"), TIMING, 0.0)
    agent = ServerAgent(member, tuple(HostedGroup(member, Gate(group, "primary", ())) for group in hosted))
    for group in hosted:
        for service in group.services:
            agent.receive(events.ServiceSeen(service.name, "r1", "active", Protection.PROTECTED, in_sync=True), 0.0)
            agent.receive(checkpoint(service.name, 1), 0.0)
    return agent


def checkpoint(service: str, sequence: int) -> facts.CheckpointSeen:
    return facts.CheckpointSeen("primary", service, "r1", "active", sequence, 0.001, 900)


def test_of_many_services_a_checkpoint_is_no_news_until_its_time_and_all_else_is_at_once() -> None:
    agent = server(4, 25)
    services = agent.member.services
    first = services(0.1)
    assert len(first) == 100
    agent.receive(checkpoint("s30", 2), 0.2)
    assert services(0.2) is first
    agent.receive(events.ServiceSeen("s30", "r1", "active", Protection.UNPROTECTED, in_sync=False), 0.3)
    changed = services(0.3)
    assert changed[30].protection is Protection.UNPROTECTED
    assert changed[30].checkpoint_sequence == 2
    assert changed[:25] == first[:25]
    agent.receive(events.RunExited("s99", "r1"), 0.4)
    assert services(0.4)[99].role == "stopped"
    agent.receive(checkpoint("s0", 9), 0.5)
    later = services(0.1 + AGE_MAX_SECONDS)
    assert later[0].checkpoint_sequence == 9
    assert later[0].checkpoint_age_seconds == pytest.approx(0.1 + AGE_MAX_SECONDS - 0.5)


def test_of_few_services_every_heartbeat_has_ages_to_the_moment() -> None:
    agent = server(2, 4)
    assert [agent.member.services(now)[7].checkpoint_age_seconds for now in (0.1, 0.15)] == [0.1, 0.15]


def test_a_gateway_names_services_whose_clients_wait_and_for_a_while_those_that_answered_them() -> None:
    agent = SiteAgent(Member("gateway", "i", (), ("primary", "secondary"), TIMING, 0.0), ())

    def told(now: float) -> dict[str, float]:
        return {seen.service: seen.unanswered_seconds for seen in agent.member.clients(now)}

    for service in ("s0", "s1", "s2"):
        agent.receive(events.ClientsSeen(service, 0.2), 0.0)
    assert told(0.0) == {"s0": 0.2, "s1": 0.2, "s2": 0.2}
    agent.receive(events.ClientsSeen("s1", 0.0, answered=True), 1.0)
    agent.receive(events.ClientsSeen("s2", 0.0), 1.0)
    assert told(1.0) == {"s0": 0.2, "s1": 0.0}, "those who gave up were not answered"
    assert told(1.0 + ANSWERED_SECONDS_MIN) == {"s0": 0.2}
    agent.receive(events.ClientsSeen("s1", 0.3), 20.0)
    assert told(40.0) == {"s0": 0.2, "s1": 0.3}


# ---------------------------------------------------------------------- at the switcher

(GROUP,) = groups(1, 2)
RECORD = facts.GroupRecord(
    group="g0",
    stamp=STAMP,
    active="primary",
    previous="secondary",
    in_sync=True,
    reason=Reason.PROTECTION,
    voters=VOTERS,
    gateways=("gateway",),
    active_run="s0=r1,s1=r1",
    standby_run="s0=r1,s1=r1",
)


def said(role: str, *, gate_open: bool) -> tuple[ServiceStatus, ...]:
    return tuple(
        ServiceStatus(service.name, "g0", "r1", role, Protection.PROTECTED, in_sync=True, gate_open=gate_open)
        for service in GROUP.services
    )


def beat(site: str, services: tuple[ServiceStatus, ...] = (), **more: object) -> Heartbeat:
    plain = Heartbeat(site, "i", 1, 0.0, 0.05, marks={"g0": STAMP}, services=services, services_version=7)
    return replace(plain, **more)


class Heard:
    """A switcher's evidence, and what was heard last of each site."""

    def __init__(self) -> None:
        self.evidence = Evidence(GROUP, "gateway", TIMING)
        self._ballots = Ballots()

    def hear(self, one: Heartbeat, now: float) -> bool:
        return self.evidence.hear(self._ballots.take(one, now))

    def unanswered(self, now: float) -> None:
        seen = tuple(Observation(site, Path.UP, 9.0, Bus.ALIVE, 9.0) for site in ("primary", "secondary"))
        waiting = (facts.ClientsObservation("s1", 2.0),)
        self.hear(beat("gateway", observations=seen, clients=waiting), now)


def test_a_heartbeat_without_a_word_on_services_is_one_all_the_same_and_no_word_on_them() -> None:
    heard = Heard()
    heard.hear(beat("primary", said("active", gate_open=True)), 1.0)
    heard.hear(beat("secondary", said("standby", gate_open=False)), 1.0)
    assert readiness.protection(heard.evidence, RECORD, 1.0) == (True, RECORD.active_run, RECORD.standby_run)
    for now in (1.05, 1.1, 1.4, 1.5):
        heard.hear(beat("primary"), now)
        heard.hear(beat("secondary"), now)
    assert heard.evidence.is_heard("primary", 1.5)
    assert readiness.protection(heard.evidence, RECORD, 1.5) is None
    heard.hear(beat("primary", said("active", gate_open=True)), 1.55)
    in_force = (RECORD.in_sync, RECORD.active_run, RECORD.standby_run)
    assert readiness.protection(heard.evidence, RECORD, 1.55) == in_force, (
        "only the active can say that its standby is lost"
    )


def test_an_active_is_not_asked_to_leave_before_it_has_said_whether_it_could_serve() -> None:
    heard = Heard()
    heard.hear(beat("secondary", said("standby", gate_open=False)), 5.0)
    heard.hear(beat("primary"), 5.0)
    heard.unanswered(5.0)
    assert concluding.conclude(heard.evidence, RECORD, 5.0) is None
    heard.hear(beat("primary", said("active", gate_open=True)), 5.05)
    heard.unanswered(5.1)
    assert concluding.conclude(heard.evidence, RECORD, 5.1) is None, "it has only just opened, as far as is known"
    heard.hear(beat("primary"), 5.3)
    heard.hear(beat("primary", said("active", gate_open=True)), 5.4)
    heard.unanswered(5.4)
    verdict = concluding.conclude(heard.evidence, RECORD, 5.4)
    assert verdict is not None
    assert verdict.reason is Reason.CUT_OFF


def test_what_was_not_said_cannot_take_over() -> None:
    heard = Heard()
    heard.hear(beat("primary", said("active", gate_open=True)), 1.0)
    heard.hear(beat("secondary"), 1.0)
    verdict = concluding.conclude(heard.evidence, RECORD, 1.0)
    assert verdict is None
    proof = facts.Proof("g0", "s0", "primary", STAMP, "r1", "i", facts.ProofKind.EXITED, gate_closed=False)
    assert heard.evidence.prove(proof, RECORD)
    verdict = concluding.conclude(heard.evidence, RECORD, 1.0)
    assert verdict is not None
    assert any(
        "secondary has not said how s0 is" in why
        for why in readiness.promotable(heard.evidence, RECORD, "secondary", verdict, 1.0)
    )
    heard.hear(beat("secondary", said("standby", gate_open=False)), 1.05)
    assert readiness.promotable(heard.evidence, RECORD, "secondary", verdict, 1.05) == ()


def test_news_of_a_group_is_told_from_what_was_said_before() -> None:
    heard = Heard()
    first = said("active", gate_open=True)
    assert heard.hear(beat("primary", first), 1.0)
    assert not heard.hear(beat("primary", first), 1.05)
    older = tuple(replace(status, checkpoint_sequence=4, checkpoint_age_seconds=0.3) for status in first)
    assert not heard.hear(beat("primary", older), 1.1)
    assert heard.hear(beat("primary", said("active", gate_open=False)), 1.15)
    assert heard.hear(beat("primary"), 1.2)
