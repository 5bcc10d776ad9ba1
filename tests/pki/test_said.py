"""The table of who says what is true: in random stories the real decisions say all that it has, and nothing else."""

from __future__ import annotations

import pytest

from tunnelswitch.bus.codec import Envelope
from tunnelswitch.bus.speech import (
    GATEWAY_SAYS,
    OPERATOR_SAYS,
    SERVER_SAYS,
    SWITCHER_SAYS,
    WITNESS_SAYS,
    check_sender,
)
from tunnelswitch.bus.subjects import BY_TYPE, subject_of
from tunnelswitch_lab.simulator.bus import SimulatedBus
from tunnelswitch_lab.simulator.running import play_range

STORIES = range(1000)
ROLES = {"primary": "server", "secondary": "server", "gateway": "gateway", "branch": "gateway", "witness": "witness"}
SAYS = {
    "server": SERVER_SAYS,
    "gateway": GATEWAY_SAYS,
    "witness": WITNESS_SAYS,
    "switcher": SWITCHER_SAYS,
    "operator": OPERATOR_SAYS,
}
OF_ADAPTERS = {("server", "checkpoint"), ("gateway", "traffic")}  # the simulator has none of these
OF_PEOPLE = {("operator", "plan"), ("operator", "pause")}  # told in tests/core


def test_what_is_said_is_in_the_table_and_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[tuple[str, str], tuple[str, object]] = {}
    publish = SimulatedBus.publish

    def listen(bus: SimulatedBus, sender: str, site: str, message: object) -> None:
        kind, (name, _, switcher_of) = BY_TYPE[type(message)].name, sender.partition("@")
        source = f"{switcher_of}/switcher" if switcher_of else name if name == "operator" else f"{name}/agent"
        if sender != "store":
            said.setdefault((name if switcher_of else ROLES.get(name, name), kind), (source, message))
        publish(bus, sender, site, message)

    monkeypatch.setattr(SimulatedBus, "publish", listen)
    assert play_range(STORIES) == (len(STORIES), [])
    for source, message in said.values():
        check_sender(subject_of("lab", message), Envelope(message, source, "1", 1.0))
    assert set(said) | OF_ADAPTERS | OF_PEOPLE == {(role, kind) for role, kinds in SAYS.items() for kind in kinds}
