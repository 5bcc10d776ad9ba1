"""The lab's guest: its archive, its command lines, and where QEMU comes from."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tunnelswitch_lab.guest import archive
from tunnelswitch_lab.guest.image import GET_QEMU, Image, qemu_version
from tunnelswitch_lab.guest.machine import Machine, command

MACHINE = Machine(
    site="primary",
    run=bytes(range(8)),
    standby=False,
    tap="vm0",
    mac="02:00:4d:00:00:0a",
    address="192.168.77.10/24",
    client=("192.168.77.1", "02:00:4d:00:00:01"),
    mtu_bytes=1400,
    qmp=Path("/run/x/qmp-primary.sock"),
    console=Path("/run/x/console-primary.log"),
)
IMAGE = Image(Path("/c/vmlinuz"), Path("/c/initrd.gz"))


def entries(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and contents by path, as cpio(5) has it."""
    found, at = {}, 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        start = at + (110 + fields[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], data[start : start + fields[6]])
        at = start + (fields[6] + 3) // 4 * 4


def test_an_archive_holds_the_files_and_the_directories_they_need() -> None:
    packed = archive.build({"init": b"#!/bin/busybox sh\n", "lib/deep/x.ko": b"12345", "bin/service": b""})
    found = entries(packed)
    assert len(packed) % 512 == 0
    assert found["lib/deep/x.ko"] == (0o100755, b"12345")
    assert found["init"][1] == b"#!/bin/busybox sh\n"
    directories = [path for path, (mode, _) in found.items() if stat.S_ISDIR(mode)]
    assert directories == ["bin", "dev", "lib", "lib/deep", "proc", "sys"]


def test_both_copies_are_the_same_machine() -> None:
    active = command(["qemu"], IMAGE, MACHINE)
    sites = {"site": "secondary", "run": bytes(8), "qmp": Path("/run/x/qmp-secondary.sock")}
    standby = command(["qemu"], IMAGE, replace(MACHINE, standby=True, **sites))
    different = [new for old, new in zip(active, standby, strict=False) if old != new]
    assert len(different) == 3, "name, identity and monitor"
    assert "-incoming" not in active
    assert standby[len(active) :][:1] == ["-chardev"]
    assert "defer" in standby
    assert any("id=mute0" in word for word in standby)
    identities = [word for words in (active, standby) for word in words if word.startswith("name=opt/")]
    assert len({len(word) for word in identities}) == 1


def test_a_site_that_the_guest_cannot_carry() -> None:
    with pytest.raises(ValueError, match="1 to 16 bytes"):
        command(["qemu"], IMAGE, replace(MACHINE, site="a-site-with-a-long-name"))


def get_qemu(directory: Path, version: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script where the system's QEMU has this version."""
    program = directory / "qemu-system-x86_64"
    program.write_text(f'#!/bin/sh\necho "QEMU emulator version {version} (Debian)"\n', encoding="utf-8")
    program.chmod(0o755)
    path = f"{directory}:{os.environ['PATH']}"
    return subprocess.run(
        [str(GET_QEMU)],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("version", ["11.1.0", "11.1.3", "12.0.0", "11.10.1"])
def test_the_system_s_qemu_is_used_if_it_is_new_enough(tmp_path: Path, version: str) -> None:
    done = get_qemu(tmp_path, version, TUNNELSWITCH_CACHE="/nonexistent")
    assert (done.stdout, done.returncode) == ("qemu-system-x86_64\n", 0)


@pytest.mark.parametrize("version", ["7.2.19", "10.0.8", "11.0.50", "unknown"])
def test_an_older_one_is_not(tmp_path: Path, version: str) -> None:
    unpacked = tmp_path / "cache" / "qemu-11.1"
    unpacked.mkdir(parents=True)
    done = get_qemu(tmp_path, version, TUNNELSWITCH_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0
    assert f"{unpacked}/usr/bin/qemu-system-x86_64" in done.stdout.split()


@pytest.mark.parametrize(("cache", "remedy"), [("relative", "absolute path"), ("/tmp/with blank", "without blanks")])
def test_a_cache_that_cannot_be(tmp_path: Path, cache: str, remedy: str) -> None:
    done = get_qemu(tmp_path, "7.2.0", TUNNELSWITCH_CACHE=cache)
    assert done.returncode == 1
    assert remedy in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_version_is_told_without_fetching_a_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "qemu-system-x86_64").write_text("#!/bin/sh\necho 'QEMU emulator version 11.2.5 (Debian x)'\n")
    (tmp_path / "qemu-system-x86_64").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TUNNELSWITCH_CACHE", str(tmp_path / "cache"))
    assert qemu_version() == "11.2.5"
    (tmp_path / "qemu-system-x86_64").write_text("#!/bin/sh\necho 'QEMU emulator version 10.0.8'\n")
    assert qemu_version() is None
    assert not (tmp_path / "cache").exists()
