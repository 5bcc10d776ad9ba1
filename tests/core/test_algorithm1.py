"""Algorithm 1, one test per line of the paper that says something, and its promise under repetition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelswitch.core.algorithm1 import T2, T3, switch_tunnels

ANY_TUNNELS = st.frozensets(st.sampled_from([T2, T3]))


def after(running: str, present: frozenset[str]) -> frozenset[str]:
    change = switch_tunnels(running=running, primary="primary", present=present)
    return (present - change.remove) | change.add


def test_line_3_repeat_changes_nothing_once_it_is_right() -> None:
    assert not switch_tunnels(running="primary", primary="primary", present=frozenset({T2}))
    assert not switch_tunnels(running="secondary", primary="primary", present=frozenset({T3}))


@pytest.mark.parametrize("running", ["primary", "secondary"])
def test_line_5_the_running_server_alone_decides(running: str) -> None:
    results = {after(running, present) for present in (frozenset(), frozenset({T2}), frozenset({T3}))}
    assert len(results) == 1


def test_lines_6_to_8_primary_runs_so_tunnel_2_is_added_and_tunnel_3_removed() -> None:
    change = switch_tunnels(running="primary", primary="primary", present=frozenset({T3}))
    assert (change.add, change.remove) == ({T2}, {T3})


def test_lines_9_and_10_else_tunnel_3_is_added_and_tunnel_2_removed() -> None:
    change = switch_tunnels(running="secondary", primary="primary", present=frozenset({T2}))
    assert (change.add, change.remove) == ({T3}, {T2})


@given(running=st.sampled_from(["primary", "secondary", "third"]), present=ANY_TUNNELS)
def test_exactly_one_tunnel_whatever_was_there_before(running: str, present: frozenset[str]) -> None:
    assert after(running, present) == {T2 if running == "primary" else T3}
    assert after(running, after(running, present)) == after(running, present)
