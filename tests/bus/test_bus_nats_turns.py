"""Many services over a real cluster: who missed what they were learns it, and nobody is told what is no longer so."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest
from bus_cluster import NAMES
from bus_ends import bus, until

from tunnelswitch.bus import samples
from tunnelswitch.core import facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from bus_cluster import Cluster

    from tunnelswitch.adapters.nats_bus import NatsBus

pytestmark = pytest.mark.nats


def many(**changed: object) -> tuple[facts.ServiceStatus, ...]:
    """Thirty services in ten groups; the first of them with `changed`."""
    (one,) = samples.HEARTBEAT.services
    services = [dataclasses.replace(one, service=f"s{n}", group=f"g{n // 3}") for n in range(30)]
    return (dataclasses.replace(services[0], **changed), *services[1:])


class Speaker:
    """The agent of `gateway`, life after life: it says all that it hosts twenty times a second."""

    def __init__(self, one: NatsBus) -> None:
        self.services = many()
        self.incarnation = "first"
        self.said: dict[int, tuple[facts.ServiceStatus, ...]] = {}
        self.bus = one

    def say(self) -> int:
        number = len(self.said) + 1
        self.said[number] = self.services
        again = {"incarnation": self.incarnation, "sequence": number, "sent_at_monotonic": number * 0.05}
        self.bus.publish(dataclasses.replace(samples.HEARTBEAT, services=self.services, **again))
        return number

    async def first_heard(self, heard: list, services: tuple[facts.ServiceStatus, ...]) -> int:
        """Say these until all of them are heard; returns how many were in the first heartbeat that came. In none is
        anything that was not so when it was said."""
        self.services = services
        since = self.say()
        for _ in range(2000):
            await asyncio.sleep(0.005)
            if heard and heard[-1].sequence >= since and len(heard[-1].services) == len(services):
                break
            self.say()
        for beat in heard:
            assert set(beat.services) <= set(self.said[beat.sequence])
        news = [beat for beat in heard if beat.sequence >= since]
        assert set(news[-1].services) == set(services)
        return len(news[0].services)


async def test_who_did_not_hear_what_many_services_were_learns_what_they_are(
    cluster: Cluster, closing: Callable[..., None]
) -> None:
    heard: list[facts.Heartbeat] = []
    sender = bus(cluster, "gateway/agent", lambda _: None, only=("n1",))
    states: list[str | None] = []
    receiver = bus(cluster, "secondary/agent", heard.append, only=("n2", "n3"), on_state=states.append)
    closing(sender, receiver)
    speaker = Speaker(sender)
    await sender.start()
    await until(lambda: sender.connected)
    speaker.say()
    await receiver.start()  # late: what was said first, and whole, it has not heard
    await until(lambda: receiver.connected)
    assert await speaker.first_heard(heard, many()) < len(many())
    assert await speaker.first_heard(heard, many(role="standby", gate_open=False)) == len(many())

    cluster.kill(next(name for name in NAMES if cluster.url(name) == states[0]))
    speaker.services = many(role="stopped", protection=facts.Protection.STOPPED, gate_open=False)
    speaker.say()
    speaker.services = many(run="another")  # that it was ever stopped is heard of by nobody
    speaker.say()
    await until(lambda: len(states) == 3)
    assert await speaker.first_heard(heard, speaker.services) < len(many()), "what else had changed it could not know"


async def test_who_loses_his_connection_or_starts_anew_says_at_once_what_many_services_are(
    cluster: Cluster, closing: Callable[..., None]
) -> None:
    heard: list[facts.Heartbeat] = []
    states: list[str | None] = []
    sender = bus(cluster, "gateway/agent", lambda _: None, only=("n1", "n3"), on_state=states.append)
    receiver = bus(cluster, "secondary/agent", heard.append, only=("n2",))
    closing(sender, receiver)
    speaker = Speaker(sender)
    await sender.start()
    await receiver.start()
    await until(lambda: sender.connected and receiver.connected)
    await speaker.first_heard(heard, many())
    cluster.kill(next(name for name in NAMES if cluster.url(name) == states[0]))
    speaker.services = many(run="another")
    speaker.say()
    await until(lambda: len(states) == 3)
    assert await speaker.first_heard(heard, speaker.services) == len(many())

    await sender.close()
    again = Speaker(bus(cluster, "gateway/agent", lambda _: None))
    again.incarnation = "second"
    closing(again.bus)
    await again.bus.start()
    await until(lambda: again.bus.connected)
    heard.clear()
    assert await again.first_heard(heard, many(run="", role="stopped", gate_open=False)) == len(many())
    assert receiver.counts.bad == {}
