"""Who may say what: a message on another subject, or from another speaker, is not taken."""

from __future__ import annotations

import pytest

from tunnelswitch.bus import samples
from tunnelswitch.bus.codec import Envelope
from tunnelswitch.bus.speech import check_sender, is_of_site
from tunnelswitch.bus.subjects import BY_NAME, BY_TYPE, RECORD, subject_of
from tunnelswitch.errors import BadMessageError

AGENT = {"heartbeat", "checkpoint", "proof", "applied", "serving", "promote_failed", "handover_refused", "traffic"}
SWITCHER = {"applied", "decision", "epoch", "handover", "failover"}
OPERATOR = {"move", "plan", "drain", "pause"}
SAMPLES = {BY_TYPE[type(message)].name: message for message in samples.MESSAGES}


def verdict(message: object, source: str, subject: str | None = None) -> str | None:
    """What is wrong with it; None if it is taken."""
    came_on = subject_of("lab", message) if subject is None else subject
    try:
        check_sender(came_on, Envelope(message, source, "1", 1.0))
    except BadMessageError as error:
        return error.kind if error.remedy else "no remedy"
    return None


def test_there_is_a_sample_of_every_kind() -> None:
    assert set(SAMPLES) | {RECORD.name} == set(BY_NAME)


@pytest.mark.parametrize("kind", SAMPLES)
def test_only_those_who_may_say_it_are_heard(kind: str) -> None:
    message = SAMPLES[kind]
    about = BY_NAME[kind].token(message)
    site = about if is_of_site(kind) else "anywhere"
    allowed = {name for name, says in (("agent", AGENT), ("switcher", SWITCHER)) if kind in says}
    for role in ("agent", "switcher"):
        assert verdict(message, f"{site}/{role}") == (None if role in allowed else "source")
        if is_of_site(kind):
            assert verdict(message, f"elsewhere/{role}") == "source"
    assert verdict(message, "operator") == (None if kind in OPERATOR else "source")
    for nobody in ("viewer", "gateway/store", site, "", "/", f"{site}/agent/", f"{site}/AGENT", "x" * 256):
        assert verdict(message, nobody) == "source"


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_message_belongs_on_its_own_subject(kind: str) -> None:
    message = SAMPLES[kind]
    other = "epoch" if kind != "epoch" else "proof"
    about = BY_NAME[kind].token(message)
    for subject in (f"tsw.v1.lab.{kind}.other", f"tsw.v1.lab.{other}.{about}", f"tsw.v1.lab.{kind}", kind, "", about):
        assert verdict(message, "operator", subject) == "subject"


def test_a_record_is_of_the_store_whoever_wrote_it() -> None:
    assert verdict(samples.RECORD, "gateway.1a2b") is None
    assert verdict(samples.RECORD, "init") is None
    assert verdict(samples.RECORD, "init", "tsw.v1.lab.record.other") == "subject"
