"""With several gateways: when a site may open, and that it may no more."""

from __future__ import annotations

from stories import TWO_GATEWAYS, in_good_times

from tunnelswitch.core.facts import DrainRequest, Epoch


def test_what_could_not_be_opened_in_time_is_not_opened_when_somebody_holds_a_higher_mark() -> None:
    story = in_good_times(TWO_GATEWAYS)
    story.ask("secondary")
    story.run(1.0)
    assert story.answering_copies() == {"secondary"}

    story.lose_ovsdb("secondary")
    story.restore_ovsdb("secondary", 3)
    story.bus.deaf["secondary", Epoch] += 1
    story.store.shut_out["secondary"] += 1
    story.bus.publish("operator", "gateway", DrainRequest("voip", story.record.stamp, "primary", True, "alice"))
    story.run(0.5)
    assert story.record.drained == ("primary",)
    story.regain_ovsdb("secondary")
    story.run(0.5)
    assert story.answering_copies() == frozenset(), "it knows that others follow a record which it has not read"

    story.bus.deaf.clear()
    story.store.shut_out.clear()
    story.run(2.0)
    assert story.answering_copies() == {"secondary"}
