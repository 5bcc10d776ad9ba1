"""Output that no standby holds: when it may leave (PROTOCOL R7). The simulator judges that no taker-over lacks it."""

from __future__ import annotations

from stories import SERVICE, TWO_GATEWAYS, Story, in_good_times

from tunnelswitch.core import events
from tunnelswitch.core.facts import Protection


def allowed(story: Story, site: str = "primary") -> bool:
    """The last word that the driver at `site` got."""
    machine = story.machine(site)
    return bool(machine.hosted[0]._alone._told)


def test_under_protection_output_waits_and_without_it_only_until_the_record_says_so() -> None:
    story = in_good_times()
    story.service.revives = False
    assert not allowed(story)
    story.service.lose_checkpoints()
    story.run(0.1)
    assert story.record.in_sync  # a loss must stand for a while
    assert not allowed(story)
    story.run(1.0)
    assert not story.record.in_sync
    assert allowed(story)
    assert story.service.copies["secondary"].behind
    story.lose_host("primary")
    story.run(3.0)
    assert story.moves == []  # rather nobody than one that does not know what clients were told


def test_an_active_that_cannot_tell_the_record_lets_nothing_out() -> None:
    story = in_good_times()
    story.service.revives = False
    story.isolate("primary")
    story.service.lose_checkpoints()
    story.run(3.0)
    assert story.answering_copies() == {"secondary"}
    assert not story.service.copies["secondary"].behind
    assert allowed(story, "secondary")  # alone now, and the record says so
    assert not allowed(story, "primary")


def test_who_takes_over_speaks_at_once() -> None:
    story = in_good_times()
    story.service.revives = False
    story.lose_host("primary")
    story.run(0.5)
    assert story.answering_copies() == {"secondary"}
    assert allowed(story, "secondary")


def told(story: Story) -> list[bool]:
    """What the driver at the primary is told from now on."""
    words: list[bool] = []
    story.service.allow_output = lambda site, allowed: words.append(allowed)  # type: ignore[method-assign]
    return words


def claim(story: Story, protection: Protection) -> None:
    """The primary's driver says so, and a heartbeat carries it."""
    run = story.service.copies["primary"].run
    story.tell("primary", events.ServiceSeen(SERVICE, run, "active", protection, protection is Protection.PROTECTED))
    story.run(0.03)


def test_the_word_is_repeated_while_it_holds_and_withdrawn_with_a_claim() -> None:
    story = in_good_times()
    story.service.revives = False
    story.service.lose_checkpoints()
    story.run(1.0)
    words = told(story)
    story.run(2.5)
    assert words == [True] * len(words)
    assert len(words) >= 2
    claim(story, Protection.PROTECTED)
    assert words[-1] is False


def test_a_claim_under_the_stamp_in_force_outlives_its_end_for_a_while() -> None:
    """A standby came and went before the record took notice of it; a switcher that heard may still be about to."""
    story = in_good_times()
    story.service.revives = False
    story.service.crash("secondary")
    story.run(1.0)
    words = told(story)
    claim(story, Protection.PROTECTED)
    claim(story, Protection.UNPROTECTED)
    story.run(1.0)
    assert words[-1] is False
    story.run(5.0)
    assert words[-1] is True


def test_once_allowed_it_stays_so_whatever_fails() -> None:
    story = in_good_times()
    story.service.revives = False
    story.service.crash("secondary")
    story.run(1.0)
    assert allowed(story)
    words = told(story)
    story.lose_ovsdb("primary")
    story.store.up = False
    story.run(2.0)
    story.isolate("primary")
    story.run(2.0)
    assert False not in words


def test_with_two_gateways_as_with_one() -> None:
    story = in_good_times(TWO_GATEWAYS)
    story.service.revives = False
    story.service.lose_checkpoints()
    story.run(1.5)
    assert not story.record.in_sync
    assert allowed(story)


def test_an_agent_that_was_restarted_does_not_know_what_it_claimed_before() -> None:
    """The record may be about to take the claim of the process before, of a standby that is lost."""
    story = in_good_times()
    story.service.revives = False
    story.service.lose_checkpoints()
    story.run(1.0)
    assert allowed(story)
    story.kill("primary")
    story.start("primary")
    words = told(story)
    story.run(2.0)
    assert True not in words
    story.run(5.0)
    assert words[-1] is True
