"""The service as real processes on loopback: what the client gets when copies die, hang or are promoted."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from service_process import Asker, Copy, free_port, wait_until

from tunnelswitch_lab.workload.packets import RtpPacket, build_rtp


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Copy, Copy]]:
    first, second = free_port(), free_port()
    alpha = Copy(tmp_path, "alpha", "127.77.0.1", first, second)
    beta = Copy(tmp_path, "beta", "127.77.0.2", second, first)
    yield alpha, beta
    alpha.close()
    beta.close()


@pytest.fixture
def asker() -> Iterator[Asker]:
    client = Asker()
    yield client
    client.close()


def start_protected(alpha: Copy, beta: Copy, interval_ms: float = 10) -> None:
    """Both copies run and the active has seen its first checkpoint acknowledged."""
    beta.start("standby", interval_ms)
    alpha.start("active", interval_ms)
    wait_until(lambda: bool(alpha.status()["in_sync"]), what="protected")


def test_state_survives_a_kill_with_at_most_one_interval_lost(pair: tuple[Copy, Copy], asker: Asker) -> None:
    alpha, beta = pair
    start_protected(alpha, beta)
    for expected in range(1, 41):
        answer = asker.ask(alpha)
        assert answer is not None
        assert (answer[1].counter, answer[1].client_counter, answer[1].site) == (expected, expected, "alpha")
        if expected == 37:
            alpha.commit()
    alpha.kill()
    promoted = beta.hook("promote")
    assert promoted.returncode == 0, promoted.stderr
    answer = asker.ask(beta)
    assert answer is not None
    assert answer[1].site == "beta"
    assert answer[1].run.hex() == beta.status()["run"] != ""
    rollback = 41 - answer[1].counter
    assert 0 <= rollback <= 3, "what the last commit did not hold, and no more"
    assert answer[1].client_counter == answer[1].counter


def test_standby_answers_nobody_before_promotion(pair: tuple[Copy, Copy], asker: Asker) -> None:
    alpha, beta = pair
    start_protected(alpha, beta)
    for _ in range(5):
        assert asker.ask(beta, seconds=0.05) is None
    assert beta.hook("promote").returncode == 0
    answer = asker.ask(beta)
    assert answer is not None
    assert answer[0].sequence == 6, "what came before the promotion must never be answered"


def test_promotion_is_idempotent_and_reported(pair: tuple[Copy, Copy]) -> None:
    alpha, beta = pair
    start_protected(alpha, beta)
    assert [beta.hook("promote").returncode, beta.hook("promote").returncode] == [0, 0]
    assert beta.status()["role"] == "active"
    assert [event["role"] for event in beta.roles_until_active()] == ["standby", "active"]
    wait_until(lambda: not alpha.status()["in_sync"], what="the old active knows that it is unprotected")


def test_both_ends_report_every_commit_and_the_loss_of_the_peer(pair: tuple[Copy, Copy]) -> None:
    alpha, beta = pair
    start_protected(alpha, beta)
    told: list[dict[str, Any]] = []
    holds: list[dict[str, Any]] = []
    sent: list[dict[str, Any]] = []
    held: list[dict[str, Any]] = []

    def are_enough() -> bool:  # take them often: the kernel queues few datagrams
        for copy, all_of_it, commits in ((alpha, told, sent), (beta, holds, held)):
            new = copy.events()
            all_of_it.extend(new)
            commits.extend(event for event in new if event["kind"] == "checkpoint")
        return min(len(sent), len(held)) > 3

    wait_until(are_enough, what="commits")
    assert sorted({event["sequence"] for event in sent}) == [event["sequence"] for event in sent]
    for of_one_end in (told, holds):
        connected = [event["connected"] for event in of_one_end if event["kind"] == "peer"]
        assert connected[0]
        assert all(before != after for before, after in pairwise(connected)), "each change once"
    assert all(event["role"] == "active" and 0 <= event["pause_seconds"] < 20 for event in sent)
    assert all(event["role"] == "standby" and event["bytes"] > 0 for event in held)
    beta.kill()
    lost: list[dict[str, Any]] = []

    def is_lost() -> bool:
        lost.extend(event for event in alpha.events() if event["kind"] == "peer")
        return bool(lost)

    wait_until(is_lost, what="the loss is told")
    wait_until(lambda: not alpha.status()["in_sync"], what="unprotected")
    assert [event["connected"] for event in lost] == [False]


def test_a_hanging_peer_does_not_stop_the_service(pair: tuple[Copy, Copy], asker: Asker) -> None:
    alpha, beta = pair
    start_protected(alpha, beta)
    assert beta.process is not None
    for _ in range(5):  # a machine that stands still over the time limit leaves no time for answers: not each time
        beta.process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)  # a checkpoint has no answer now
        answers = 0
        while alpha.status()["in_sync"]:
            assert asker.ask(alpha) is not None
            answers += bool(alpha.status()["in_sync"])
        beta.process.send_signal(signal.SIGCONT)
        wait_until(lambda: bool(alpha.status()["in_sync"]), what="protected again")
        if answers > 10:
            return
    raise AssertionError(f"no answer may wait for the peer's time limit: {answers} came before it")


def test_a_promoted_copy_protects_itself_with_a_new_standby(pair: tuple[Copy, Copy], asker: Asker) -> None:
    alpha, beta = pair
    start_protected(alpha, beta)
    for _ in range(10):
        assert asker.ask(alpha) is not None
    alpha.commit()
    assert alpha.hook("fence").returncode == 0
    alpha.kill()
    assert beta.hook("promote").returncode == 0
    alpha.start("standby")
    wait_until(lambda: bool(beta.status()["in_sync"]), what="the new pair is in sync")
    beta.commit()
    beta.kill()
    assert alpha.hook("promote").returncode == 0
    answer = asker.ask(alpha)
    assert answer is not None
    assert answer[1].counter == 11, "two failovers at rest lose nothing"


def test_garbage_on_every_socket_is_ignored(pair: tuple[Copy, Copy], asker: Asker) -> None:
    alpha, beta = pair
    start_protected(alpha, beta)
    reply_shaped = build_rtp(RtpPacket(1, 2, 3, 0), b"TSWR" + bytes(156))
    for data in (b"", b"x", bytes(11), b"\x00" * 64, b"\x80\xc9" + bytes(30), b"\xff" * 1500, reply_shaped):
        asker.send_raw(alpha, data)
        asker.send_raw(alpha, data, alpha.probe_port)
    for port in (beta.bind, beta.bind):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 100)
            assert stranger.recv(10) == b""
    with socket.create_connection(("127.0.0.1", beta.bind), timeout=20) as liar:
        liar.sendall(b"TSWK\x01" + bytes(8) + b"\xff\xff\xff\xff")
        assert liar.recv(10) == b""
    answer = asker.ask(alpha)
    assert answer is not None
    assert answer[1].counter == 1, "garbage does not count"
    assert asker.probe(alpha).reply.counter == 1
    wait_until(lambda: bool(alpha.status()["in_sync"]), what="in sync all the same")
    assert beta.hook("promote").returncode == 0
    assert beta.roles_until_active()[-1]["ignored"] == 3, "the standby counted the three strangers"


def test_without_a_listener_for_events_the_service_serves(pair: tuple[Copy, Copy], asker: Asker) -> None:
    alpha, _ = pair
    (alpha.directory / "notify.sock").unlink()
    alpha.start("active", 1)
    assert asker.ask(alpha) is not None
    assert alpha.status()["in_sync"] is False


def test_fence_kills_for_certain_and_twice(pair: tuple[Copy, Copy], asker: Asker) -> None:
    alpha, _ = pair
    assert alpha.hook("fence").returncode == 0, "never started: nothing to fence"
    alpha.start("active")
    assert alpha.hook("status").returncode == 0
    assert alpha.hook("fence").returncode == 0
    assert alpha.process is not None
    assert alpha.process.wait(timeout=20) == -signal.SIGKILL
    assert alpha.hook("fence").returncode == 0
    assert asker.ask(alpha, seconds=0.05) is None


def test_hooks_fail_clearly_when_the_process_is_dead(pair: tuple[Copy, Copy]) -> None:
    alpha, _ = pair
    alpha.start("standby")
    status = alpha.hook("status")
    assert status.returncode == 0
    assert '"role":"standby"' in status.stdout
    alpha.kill()
    for name in ("promote", "status"):
        result = alpha.hook(name)
        assert result.returncode == 1
        assert result.stderr.startswith(f"{name}: pbx at alpha: process ")
        assert result.stderr.count("\n") == 1


def test_a_reused_pid_is_not_touched(pair: tuple[Copy, Copy]) -> None:
    alpha, beta = pair
    alpha.start("standby")
    pid, start, run = (alpha.directory / "service.identity").read_text(encoding="ascii").split()
    (alpha.directory / "service.identity").write_text(f"{pid} {int(start) + 1} {run}\n", encoding="ascii")
    assert alpha.hook("fence").returncode == 0
    assert alpha.process is not None
    assert alpha.process.poll() is None, "another process with this pid is none of ours"
    assert alpha.hook("promote").returncode == 1
    assert beta.process is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint-interval-ms", "0"], "between 1 and 60000"),
        (["--site", "a-name-that-is-far-too-long"], "1 to 16 bytes"),
        (["--replicate-peer", "nowhere"], "is not HOST:PORT"),
    ],
)
def test_bad_options_name_the_remedy(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tunnelswitch_lab.workload.rtp_service import main

    base = ["--site", "a", "--role", "active", "--listen", "127.0.0.1", "--state-dir", str(tmp_path)]
    base += ["--replicate-bind", "127.0.0.1:7000", "--replicate-peer", "127.0.0.1:7001"]
    with pytest.raises(SystemExit):
        main(base + arguments)
    assert message in capsys.readouterr().err


def test_an_address_in_use_is_one_clear_line(pair: tuple[Copy, Copy], capsys: pytest.CaptureFixture[str]) -> None:
    from tunnelswitch_lab.workload.rtp_service import main

    alpha, _ = pair
    alpha.start("standby")
    arguments = ["--site", "a", "--role", "active", "--listen", alpha.address]
    arguments += ["--replicate-bind", "127.0.0.1:7000", "--replicate-peer", "127.0.0.1:7001"]
    assert main([*arguments, "--state-dir", str(alpha.directory)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Address already in use" in error
