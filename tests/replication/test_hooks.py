"""Commands that hang, flood, fork, lie about their end or do not exist: none holds or crashes the agent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from driver_bench import eventually, is_running, kill_if_running, open_descriptors

from tunnelswitch.replication.hooks import OUTPUT_MAX_BYTES, HookResult, Hooks

LONG_SECONDS = 30.0


async def run(script: str, *, limit_seconds: float = LONG_SECONDS, **environment: str) -> HookResult:
    hooks = Hooks("pbx", "here", LONG_SECONDS)
    return await hooks.run("promote", ("/bin/sh", "-c", script), environment, limit_seconds)


async def test_output_and_environment() -> None:
    result = await run('echo "$TUNNELSWITCH_SERVICE $TUNNELSWITCH_SITE $TUNNELSWITCH_EPOCH"', TUNNELSWITCH_EPOCH="7")
    assert (result.problem, result.output) == ("", b"pbx here 7\n")


async def test_the_site_is_put_into_arguments() -> None:
    result = await Hooks("pbx", "here", LONG_SECONDS).run("status", ("/bin/echo", "x-{site}.sock"), {}, LONG_SECONDS)
    assert result.output == b"x-here.sock\n"


async def test_input_is_empty() -> None:
    assert (await run("cat; echo done")).output == b"done\n"


async def test_failure_names_the_status_and_the_last_line_said() -> None:
    result = await run("echo first >&2; printf 'no \\033 copy here\\n' >&2; exit 3")
    assert result.problem == "promote ended with status 3: no ? copy here"


async def test_killed_by_a_signal() -> None:
    assert (await run("kill -TERM $$")).problem == "promote was killed by signal 15"


async def test_missing_and_not_executable(tmp_path: Path) -> None:
    hooks = Hooks("pbx", "here", LONG_SECONDS)
    missing = await hooks.run("promote", (str(tmp_path / "none"),), {}, LONG_SECONDS)
    assert missing.problem == f"promote cannot be started: {tmp_path}/none: No such file or directory"
    (tmp_path / "file").write_text("", encoding="utf-8")
    plain = await hooks.run("promote", (str(tmp_path / "file"),), {}, LONG_SECONDS)
    assert plain.problem == f"promote cannot be started: {tmp_path}/file: Permission denied"


async def test_a_hanging_command_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    result = await run(f'sleep 600 & echo $! $$ > "{pids}"; trap "" TERM; wait', limit_seconds=2)
    assert result.problem == "promote did not end within 2 s"
    for pid in map(int, pids.read_text(encoding="utf-8").split()):
        await eventually(lambda pid=pid: not is_running(pid))


@pytest.mark.parametrize("stream", [1, 2])
async def test_a_flood_ends_the_command(stream: int) -> None:
    result = await run(f"while :; do echo {'x' * 1000} >&{stream}; done")
    assert result.problem == f"promote printed more than {OUTPUT_MAX_BYTES} bytes"
    assert len(result.output) <= OUTPUT_MAX_BYTES + 1


async def test_a_grandchild_that_keeps_the_pipe_open_holds_nobody(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    result = await run(f'setsid sleep 600 & echo $! > "{pid_file}"; echo served', limit_seconds=20)
    pid = int(pid_file.read_text(encoding="utf-8"))
    try:
        assert (result.problem, result.output) == ("", b"served\n")
        assert is_running(pid), "what a successful hook started in the background is not ours to end"
    finally:
        kill_if_running(pid)


async def test_the_last_output_is_not_lost() -> None:
    result = await run(f"head -c {OUTPUT_MAX_BYTES - 10} /dev/zero; echo end")
    assert result.problem == ""
    assert result.output.endswith(b"end\n")
    assert len(result.output) == OUTPUT_MAX_BYTES - 6


async def test_a_command_that_closes_its_output_early_is_waited_for() -> None:
    assert (await run("exec >&- 2>&-; sleep 0.2; exit 4")).problem == "promote ended with status 4"


async def test_the_loop_goes_on_meanwhile(tmp_path: Path) -> None:
    task = asyncio.create_task(run(f'while [ ! -e "{tmp_path}/enough" ]; do sleep 0.01; done'))
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert not task.done()
    (tmp_path / "enough").touch()
    assert (await task).problem == ""


async def test_giving_up_kills(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    hooks = Hooks("pbx", "here", LONG_SECONDS)
    script = f'echo $$ > "{pid_file}.new"; mv "{pid_file}.new" "{pid_file}"; sleep 600'
    task = asyncio.create_task(hooks.run("promote", ("/bin/sh", "-c", script), {}, LONG_SECONDS))
    await eventually(pid_file.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await hooks.close()
    pid = int(pid_file.read_text(encoding="utf-8"))
    await eventually(lambda: not is_running(pid))


async def test_many_at_once_leave_no_descriptor_behind() -> None:
    before = open_descriptors()
    results = await asyncio.gather(*(run(f"exit {number % 2}") for number in range(30)))
    assert sum(not result.problem for result in results) == 15
    assert open_descriptors() == before
