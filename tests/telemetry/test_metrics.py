"""What the metrics say after events and actions, and that the page about them names them all."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tunnelswitch.config import load, parse
from tunnelswitch.core import actions, events, facts
from tunnelswitch.core.detector import Detector
from tunnelswitch.core.facts import GroupRecord, Protection, Reason
from tunnelswitch.core.stamp import Stamp
from tunnelswitch.telemetry.families import DRIVER_PROBLEM_KINDS
from tunnelswitch.telemetry.metrics import Metrics
from tunnelswitch.telemetry.phases import PHASES
from tunnelswitch.telemetry.spoken import ROLES, STATES

ROOT = Path(__file__).parents[2]
DEPLOYMENT = load(ROOT / "deploy/example.toml")


def metrics(site: str = "gateway", process: str = "switcher") -> Metrics:
    return Metrics(DEPLOYMENT, site, process)


def value(made: Metrics, name: str, **labels: str) -> float | None:
    return made.families.registry.get_sample_value(f"tunnelswitch_{name}", labels)


def record(epoch: int, active: str = "primary", reason: Reason = Reason.PROOF, *, minor: int = 0) -> GroupRecord:
    return GroupRecord(
        group="voip",
        stamp=Stamp(epoch, "gw.1", minor),
        active=active,
        previous="primary",
        in_sync=minor > 0,
        reason=reason,
        voters=(),
        gateways=("gateway",),
    )


def test_records() -> None:
    made = metrics()
    made.observe(events.RecordRead("voip", None, 0), 1.0)
    made.observe(events.RecordRead("voip", record(1), 3), 1.0)
    assert value(made, "epoch", group="voip") == 1
    assert value(made, "switches_total", group="voip", reason="proof") == 0, "the first record is no move"
    made.observe(facts.Epoch(record(2, "secondary", Reason.SUSPICION)), 2.0)
    made.observe(facts.Epoch(record(2, "secondary", Reason.SUSPICION)), 2.0)
    made.observe(facts.Epoch(record(1)), 2.0)
    assert value(made, "epoch", group="voip") == 2
    assert value(made, "switches_total", group="voip", reason="suspicion") == 1
    active = {site: value(made, "active_site", group="voip", site=site) for site in DEPLOYMENT.sites}
    assert active == {"primary": 0, "secondary": 1, "gateway": 0}
    assert value(made, "protected", group="voip") == 0
    made.observe(facts.Epoch(record(2, "secondary", Reason.PROTECTION, minor=1)), 3.0)
    assert value(made, "protected", group="voip") == 1
    assert value(made, "switches_total", group="voip", reason="protection") == 0


def test_every_reason_starts_at_zero() -> None:
    made = metrics()
    assert [value(made, "switches_total", group="voip", reason=reason.value) for reason in Reason] == [0] * len(Reason)


def test_commits() -> None:
    made = metrics()
    made.observe(actions.CommitRecord(record(2), 3, 0.5), 10.0)
    made.observe(events.Committed(record(2), 4), 10.25)
    assert value(made, "commit_seconds_sum", group="voip") == pytest.approx(0.25)
    made.observe(events.CommitRefused("voip"), 11.0)
    made.observe(events.CommitUnknown("voip", "no answer"), 11.0)
    results = ("committed", "refused", "unknown")
    assert [value(made, "commits_total", group="voip", result=result) for result in results] == [1, 1, 1]
    made.observe(events.Committed(record(3), 5), 12.0)
    assert value(made, "commit_seconds_count", group="voip") == 1, "not ours to time"


def test_tunnels() -> None:
    made = metrics()
    made.observe(events.DataPlaneSeen(present=frozenset({"t2-pbx"}), foreign=frozenset({"t3-pbx"})), 1.0)
    up = {
        "T2": {"site": "gateway", "service": "pbx", "tunnel": "T2", "remote": "primary"},
        "T3": {"site": "gateway", "service": "pbx", "tunnel": "T3", "remote": "secondary"},
    }
    assert [value(made, "tunnel_up", **up[label]) for label in ("T2", "T3")] == [1, 0]
    assert value(made, "foreign_tunnels") == 1
    made.observe(events.SwitchApplied("voip", Stamp(2, "a"), frozenset({"t3-pbx"}), 1.0, 1.004, 1.008), 2.0)
    assert [value(made, "tunnel_up", **up[label]) for label in ("T2", "T3")] == [0, 1]
    assert value(made, "switch_seconds_sum", group="voip") == pytest.approx(0.008)
    made.observe(events.SwitchConflict("voip", None, frozenset()), 2.0)
    made.observe(events.SwitchFailed("voip", "gone"), 2.0)
    assert [value(made, "switch_failures_total", group="voip", kind=kind) for kind in ("conflict", "failed")] == [1, 1]


def test_services_and_checkpoints() -> None:
    made = metrics("primary", "agent")
    made.observe(events.ServiceSeen("pbx", "r1", "active", Protection.PROTECTED, in_sync=True), 1.0)
    assert value(made, "service_protected", service="pbx") == 1
    now = time.monotonic()
    made.observe(facts.CheckpointSeen("primary", "pbx", "r1", "active", 1, 0.002, 500), now - 3)
    made.observe(facts.CheckpointSeen("elsewhere", "pbx", "r1", "active", 1, 0.002, 500), now)
    assert value(made, "checkpoint_bytes_total", service="pbx") == 500
    assert value(made, "checkpoint_pause_seconds_count", service="pbx") == 1
    age = value(made, "checkpoint_age_seconds", service="pbx")
    assert age is not None
    assert 3 <= age < 60
    made.observe(events.Promoted("pbx", "r1", 0.004), now)
    made.observe(events.PromotionFailed("pbx", "no"), now)
    made.observe(events.FenceFailed("pbx", "no"), now)
    made.observe(events.RunExited("pbx", "r1"), now)
    names = ("promote_seconds_count", "promotion_failures_total", "fence_failures_total", "run_exits_total")
    assert [value(made, name, service="pbx") for name in names] == [1, 1, 1, 1]


def test_heartbeats_are_timestamps_and_ages() -> None:
    made = metrics()
    beat = facts.Heartbeat("primary", "a", 1, 0.0, 0.02)
    made.observe(beat, time.monotonic() - 5)
    age = value(made, "heartbeat_age_seconds", site="primary")
    received = value(made, "heartbeat_received_timestamp_seconds", site="primary")
    assert age is not None
    assert received is not None
    assert 5 <= age < 60
    assert 5 <= time.time() - received < 60
    assert value(made, "heartbeat_age_seconds", site="secondary") is None


def test_clients() -> None:
    made = metrics()
    made.observe(facts.Traffic("gateway", "pbx", "f", 0.047, 0.067, 0.02, 3, 0.004, 1.0, 1.067), 1.0)
    made.observe(events.ClientsSeen("pbx", 0.3), 1.0)
    assert value(made, "downtime_seconds_count", service="pbx") == 1
    names = ("last_downtime_seconds", "lost_packets_total", "jitter_max_seconds", "clients_unanswered_seconds")
    assert [value(made, name, service="pbx") for name in names] == [0.047, 3, 0.004, 0.3]
    assert value(made, "last_gap_seconds", service="pbx") == 0.067


def gap(downtime_seconds: float) -> facts.Traffic:
    return facts.Traffic("gateway", "pbx", "f", downtime_seconds, downtime_seconds + 0.02, 0.02, 1, 0.0, 1.0, 2.0)


def test_the_downtime_of_a_failover_is_the_longest_gap_around_it() -> None:
    made = metrics(process="agent")
    shown = lambda: value(made, "failover_downtime_seconds", service="pbx")  # noqa: E731
    made.observe(facts.Epoch(record(1)), 10.0)
    made.observe(gap(0.5), 11.0)
    assert shown() is None, "nothing has moved"
    made.observe(facts.Epoch(record(2, "secondary")), 100.0)
    assert shown() == 0.0, "nobody missed a packet yet"
    made.observe(gap(0.043), 100.02)
    made.observe(gap(0.02), 101.0)
    assert shown() == 0.043
    made.observe(gap(0.9), 200.0)
    assert shown() == 0.043, "a lossy line is not the failover's doing"
    made.observe(facts.Epoch(record(3, "primary")), 300.0)
    made.observe(gap(9.0), 308.9)
    assert shown() == 9.0, "it began before the move and ended long after it"
    assert value(metrics("primary", "agent"), "failover_downtime_seconds", service="pbx") is None


def test_what_this_site_says_of_its_copy() -> None:
    made = metrics("primary", "agent")
    assert value(made, "gate_open", service="pbx") is None
    status = facts.ServiceStatus("pbx", "voip", "r1", "active", Protection.SYNCING, False, gate_open=True)
    made.observe(actions.Publish(facts.Heartbeat("primary", "a", 1, 0.0, 0.02, services=(status,))), 1.0)
    states = {state: value(made, "service_state", service="pbx", state=state) for state in STATES}
    assert states == {"protected": 0, "syncing": 1, "unprotected": 0, "stopped": 0, "degraded": 0}
    assert [value(made, "service_role", service="pbx", role=role) for role in ROLES] == [1, 0, 0]
    assert (value(made, "gate_open", service="pbx"), value(made, "self_fenced", service="pbx")) == (1, 0)
    fenced = replace(status, role="standby", gate_open=False, self_fenced=True)
    made.observe(actions.Publish(facts.Heartbeat("primary", "a", 2, 0.0, 0.02, services=(fenced,))), 1.0)
    assert [value(made, "service_role", service="pbx", role=role) for role in ROLES] == [0, 1, 0]
    assert (value(made, "gate_open", service="pbx"), value(made, "self_fenced", service="pbx")) == (0, 1)


def test_voters_heard() -> None:
    agent, switcher = metrics("gateway", "agent"), metrics()
    now = time.monotonic()
    for made in (agent, switcher):
        made.observe(facts.Heartbeat("primary", "a", 1, 0.0, 0.02), now)
        made.observe(facts.Heartbeat("secondary", "a", 1, 0.0, 0.02), now - 30)
        assert (value(made, "voters", group="voip"), value(made, "voters_needed", group="voip")) == (3, 2)
    assert value(agent, "voters_heard", group="voip") == 2, "the agent itself is one"
    assert value(switcher, "voters_heard", group="voip") == 1, "it hears its site's agent like any other"
    switcher.observe(facts.Epoch(replace(record(1), voters=("primary",))), now)
    figures = [value(switcher, name, group="voip") for name in ("voters", "voters_needed", "voters_heard")]
    assert figures == [1, 1, 1], "the record's voters decide, not the file's"


def report(**marks: float) -> actions.Publish:
    return actions.Publish(facts.Failover("voip", 2, Reason.SUSPICION, "secondary", "primary", marks))


def test_phases_of_a_move() -> None:
    made = metrics()

    def last() -> dict[str, float]:
        found = {phase: value(made, "last_failover_phase_seconds", group="voip", phase=phase) for phase in PHASES}
        return {phase: seconds for phase, seconds in found.items() if seconds is not None}

    assert value(made, "failover_phase_seconds_count", group="voip", phase="commit") == 0
    suspected = {"path_down": 10.0, "bus_silent": 10.5, "verdict": 10.75, "committed": 11.0, "switched": 11.5}
    made.observe(report(**suspected, applied=11.625, promoted=12.0), 1.0)
    assert last() == {"conclude": 0.25, "commit": 0.25, "switch": 0.5, "apply": 0.125, "promote": 1.0}
    made.observe(report(verdict=20.0, committed=20.5, promoted=20.25), 1.0)
    assert last() == {"commit": 0.5, "promote": 0.0}, "a proof; never negative; what did not happen is gone"
    assert value(made, "failover_phase_seconds_count", group="voip", phase="commit") == 2
    assert value(made, "failover_phase_seconds_count", group="voip", phase="conclude") == 1


def test_every_process_counts_what_it_can_from_zero() -> None:
    agent, switcher, server = metrics("gateway", "agent"), metrics(), metrics("primary", "agent")
    names = ("promote_seconds_count", "checkpoint_pause_seconds_count", "run_exits_total")
    assert [value(server, name, service="pbx") for name in names] == [0, 0, 0]
    assert value(server, "switch_seconds_count", group="voip") == 0, "its gate"
    names = ("downtime_seconds_count", "lost_packets_total", "clients_unanswered_seconds")
    assert [value(agent, name, service="pbx") for name in names] == [0, 0, 0]
    assert [value(switcher, name, service="pbx") for name in names] == [None] * 3, "it sees no packets"
    assert value(agent, "failover_phase_seconds_count", group="voip", phase="commit") is None, "it makes no moves"


def test_a_driver_s_problems_start_at_zero_and_are_on_the_page() -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    text = (ROOT / "deploy/example.toml").read_text(encoding="utf-8")
    hooks = text[text.index("[services.pbx.exec]") : text.index("[detection]")]
    colo = """[services.pbx.colo]
qmp_socket = "/run/pbx/{site}.sock"
[services.pbx.colo.sites.primary]
migration_address = "10.8.0.1:7001"
[services.pbx.colo.sites.secondary]
migration_address = "10.8.0.2:7001"
"""
    machine = parse(text.replace(hooks, colo).replace('driver = "exec"', 'driver = "colo"'), "machine.toml")
    for driver, deployment in (("exec", DEPLOYMENT), ("colo", machine)):
        shown = Metrics(deployment, "primary", "agent").render().decode()
        kinds = re.findall(r'tunnelswitch_driver_problems_total\{kind="(\w+)"\} 0\.0', shown)
        assert sorted(kinds) == sorted(DRIVER_PROBLEM_KINDS[driver])
        assert all(f"`{kind}`" in page for kind in kinds)
    assert "driver_problems_total{" not in metrics().render().decode(), "a gateway drives nothing"


def test_the_rest() -> None:
    made = metrics()
    made.bus_state(True)
    made.bad_message("version")
    made.driver_problem("notice_flood")
    made.pull("stale_messages", lambda: 7)
    with pytest.raises(ValueError, match="stale_messages"):
        made.pull("nonsense", lambda: 7)
    made.observe(events.LoopLate(0.02), 1.0)
    made.observe(events.PathChanged("primary", facts.Path.UP), 1.0)
    made.observe(events.LeaderSeen("gateway"), 1.0)
    made.meta_leader("secondary")
    for action in ("refuse", "alarm", "commit"):
        made.observe(actions.Publish(facts.Decision("gateway", "voip", Stamp(1, "a"), action, "why")), 1.0)
    made.observe(object(), 1.0)
    connected = [True]
    made.watch_ovsdb(lambda: connected[0])
    assert value(made, "ovsdb_connected") == 1
    connected[0] = False
    assert value(made, "ovsdb_connected") == 0
    assert value(made, "bus_connected") == 1
    assert value(made, "bad_messages_total", kind="version") == 1
    assert value(made, "driver_problems_total", kind="notice_flood") == 1
    assert value(made, "stale_messages_total") == 7
    assert value(made, "loop_lateness_seconds_count") == 1
    assert value(made, "path_up", site="primary") == 1
    assert value(made, "stream_leader", site="gateway") == 1
    assert value(made, "meta_leader", site="secondary") == 1
    made.meta_leader(None)
    assert value(made, "meta_leader", site="secondary") == 0
    assert value(made, "refusals_total", group="voip") == value(made, "alarms_total", group="voip") == 1


def test_windows_are_read_from_their_owner_at_a_scrape() -> None:
    made = metrics("gateway", "agent")
    assert value(made, "detection_ceiling_seconds") == 1.0
    assert value(made, "false_silences_budget_per_day") == 1.0
    assert value(made, "detection_window_seconds", site="primary") is None
    detector = Detector(("primary",), limits=DEPLOYMENT.detection.limits, now=0.0)
    made.watch_windows(detector.patience)
    for now, missed in ((5.0, None), (5.02, 0), (5.32, 1)):
        detector.expire(now)
        detector.heard("primary", now, missed=missed)
    window = value(made, "detection_window_seconds", site="primary")
    assert window == value(made, "detection_window_wanted_seconds", site="primary") == pytest.approx(0.3, rel=0.2)
    assert value(made, "heartbeat_age_worst_ratio", site="primary", since="minute") == pytest.approx(5)
    assert value(made, "heartbeat_age_worst_ratio", site="primary", since="start") == pytest.approx(5)
    assert value(made, "false_silences_total", site="primary") == 1
    assert value(made, "heartbeats_lost_ratio", site="primary") == pytest.approx(1 / 3)
    expected = value(made, "false_silences_expected_per_day", site="primary")
    assert expected is not None
    assert expected > 0


def test_flaps_are_counted() -> None:
    made = metrics("gateway", "agent")
    assert value(made, "path_downs_total", site="primary") == 0
    for path in (facts.Path.DOWN, facts.Path.UP, facts.Path.DOWN, facts.Path.UNKNOWN):
        made.observe(events.PathChanged("primary", path), 1.0)
    assert value(made, "path_downs_total", site="primary") == 2
    for connected in (True, False, True):
        made.bus_state(connected)
    assert value(made, "bus_connections_total") == 2


def test_processes_of_one_interpreter_do_not_share() -> None:
    one, other = metrics(), metrics("primary", "agent")
    one.bus_state(True)
    assert value(other, "bus_connected") == 0


def test_the_page_names_every_metric() -> None:
    made = metrics()
    families = {}
    for family in made.families.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        families[name] = family.type
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"(?m)^\| `(tunnelswitch_\w+)` \| (\w+) \|", text))
    assert documented == families
    assert b"_created" not in made.render()


def test_what_protection_is_worth() -> None:
    made = metrics("primary", "agent")
    status = facts.ServiceStatus("pbx", "voip", "r1", "active", Protection.PROTECTED, True, gate_open=True)
    late = replace(status, degraded=True, why="no checkpoint for more than 1 s", checkpoint_sequence=17, progress=0.5)
    made.observe(actions.Publish(facts.Heartbeat("primary", "a", 1, 0.0, 0.02, services=(late,))), 1.0)
    assert value(made, "service_state", service="pbx", state="degraded") == 1
    assert value(made, "service_state", service="pbx", state="protected") == 0
    assert value(made, "checkpoint_sequence", service="pbx") == 17
    assert value(made, "sync_progress_ratio", service="pbx") == 0.5


def test_a_move_in_vain_is_asked_for_at_the_scrape() -> None:
    made, in_vain = metrics(), False
    made.watch_moves("voip", lambda: in_vain)
    assert value(made, "moved_in_vain", group="voip") == 0
    in_vain = True
    assert value(made, "moved_in_vain", group="voip") == 1


def test_a_drained_site_is_told() -> None:
    made = metrics()
    made.observe(facts.Epoch(replace(record(3, "primary"), drained=("secondary",))), 1.0)
    assert value(made, "drained", group="voip", site="secondary") == 1
    assert value(made, "drained", group="voip", site="primary") == 0
    made.observe(facts.Epoch(record(4, "primary")), 2.0)
    assert value(made, "drained", group="voip", site="secondary") == 0


def test_what_operators_ordered_and_what_was_refused() -> None:
    made = metrics("primary", "agent")
    assert value(made, "handovers_refused_total", group="voip") == 0
    made.observe(facts.Epoch(replace(record(3, "primary"), paused="alice: a switch is replaced")), 1.0)
    assert value(made, "paused", group="voip") == 1
    made.observe(facts.Epoch(record(4, "primary")), 1.0)
    assert value(made, "paused", group="voip") == 0
    refusal = facts.HandoverRefused("primary", "voip", Stamp(4, "x"), "no checkpoint in time")
    made.observe(actions.Publish(refusal), 1.0)
    assert value(made, "handovers_refused_total", group="voip") == 1
