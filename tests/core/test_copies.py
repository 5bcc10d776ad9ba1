"""What a site says of its copy: a state, how old the last checkpoint is, and what is missing."""

from __future__ import annotations

from tunnelswitch.core.copies import WHY_MAX, Instance
from tunnelswitch.core.events import ServiceSeen
from tunnelswitch.core.facts import CheckpointSeen, Protection, ServiceStatus
from tunnelswitch.core.topology import Service

SERVICE = Service("pbx", "br-svc", 2, 3, late_after_seconds=1.0)


def seen(
    protection: Protection = Protection.PROTECTED, run: str = "r1", why: str = "", progress: float = 0.0
) -> ServiceSeen:
    return ServiceSeen("pbx", run, "active", protection, protection is Protection.PROTECTED, 0, progress, why)


def checkpoint(sequence: int, run: str = "r1") -> CheckpointSeen:
    return CheckpointSeen("primary", "pbx", run, "active", sequence, 0.001, 900)


def status(instance: Instance, now: float) -> ServiceStatus:
    return instance.status("voip", now, gate_open=True, self_fenced=False)


def test_each_state_has_a_word_and_a_reason() -> None:
    instance = Instance.absent(SERVICE)
    assert status(instance, 0.0).state == "stopped"
    instance.saw(seen(Protection.UNPROTECTED, why="no standby yet"), 1.0)
    assert (status(instance, 1.0).state, status(instance, 1.0).why) == ("unprotected", "no standby yet")
    instance.saw(seen(Protection.SYNCING, why="the standby is given the whole state", progress=0.43), 2.0)
    assert (status(instance, 2.0).state, status(instance, 2.0).progress) == ("syncing", 0.43)
    instance.saw(seen(), 3.0)
    instance.took_checkpoint(checkpoint(7), 3.25)
    told = status(instance, 3.5)
    assert (told.state, told.checkpoint_sequence, told.checkpoint_age_seconds, told.why) == ("protected", 7, 0.25, "")


def test_a_checkpoint_that_is_too_old_degrades_and_the_next_one_mends() -> None:
    instance = Instance.absent(SERVICE)
    instance.saw(seen(), 10.0)
    assert status(instance, 10.9).state == "protected", "none has been seen yet, and it is not late yet"
    assert status(instance, 11.1).state == "degraded"
    instance.took_checkpoint(checkpoint(1), 11.2)
    assert status(instance, 11.3).state == "protected"
    late = status(instance, 12.5)
    assert (late.state, late.protection, late.why) == (
        "degraded",
        Protection.PROTECTED,
        "no checkpoint for more than 1 s",
    )
    assert late.in_sync, "it may still be promoted"


def test_the_drivers_own_word_degrades_too() -> None:
    instance = Instance.absent(Service("pbx", "br-svc", 2, 3))
    instance.saw(seen(why="the output buffer is full"), 1.0)
    assert (status(instance, 1.0).state, status(instance, 99.0).why) == ("degraded", "the output buffer is full")


def test_another_run_has_no_checkpoint_of_the_one_before() -> None:
    instance = Instance.absent(SERVICE)
    instance.saw(seen(), 1.0)
    instance.took_checkpoint(checkpoint(7), 1.0)
    instance.saw(seen(Protection.SYNCING, run="r2", why="w" * 999), 2.0)
    told = status(instance, 2.0)
    assert (told.checkpoint_sequence, told.checkpoint_age_seconds) == (0, 0.0)
    assert len(told.why) == WHY_MAX
