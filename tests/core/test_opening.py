"""When a site may open, and that it may no more."""

from __future__ import annotations

from stories import TWO_GATEWAYS, in_good_times

from tunnelswitch.core.facts import DrainRequest, Epoch, PromoteFailed, Reason, Serving
from tunnelswitch.core.stamp import Stamp


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


def test_who_could_not_take_over_and_said_so_serves_nobody_under_that_stamp() -> None:
    """The old copy may be given back at any moment: it waits until the switcher arms it anew."""
    story = in_good_times()
    story.service.fault = "fails"
    story.on_move = story.processes["secondary"].pause  # until nobody has heard of the old active for long
    story.isolate("primary")
    story.run(0.5)
    story.resume("secondary")
    story.run(0.1)
    (failed,) = {said.stamp for said in story.said(PromoteFailed)}
    story.service.fault = None
    story.run(3.0)
    assert story.moves == [("secondary", Reason.SUSPICION)]
    assert story.answering_copies() == {"secondary"}
    assert {said.stamp for said in story.said(Serving)} == {Stamp(1, "init", 1), failed.rearmed()}
