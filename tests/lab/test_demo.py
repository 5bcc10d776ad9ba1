"""What the demo protects when a machine has, or has not, what a virtual machine needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnelswitch_lab.demo import best_workload
from tunnelswitch_lab.guest import image


def test_without_qemu_the_demo_protects_a_process_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_qemu = tmp_path / "get-qemu"
    no_qemu.write_text("#!/bin/sh\necho 'get-qemu: this machine has no apt' >&2\nexit 1\n")
    no_qemu.chmod(0o755)
    monkeypatch.setattr(image, "GET_QEMU", no_qemu)
    assert best_workload() == "process"
    said = capsys.readouterr().out
    assert "this machine has no apt" in said
    assert "a process instead" in said
