"""Where figures were made: machine, versions, load. Figures without this say little."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tunnelswitch_lab.guest.image import qemu_version


def describe_environment() -> dict[str, Any]:
    """Kernel, processor, cores, versions and load of this machine, now. What cannot be found out is None."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "distribution": _distribution(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "load_average": list(os.getloadavg()),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            "tunnelswitch": _package("tunnelswitch"),
            "python": platform.python_version(),
            "openvswitch": _tool("ovs-vswitchd", "--version"),
            "qemu": qemu_version(),
            "nats_server": _tool("nats-server", "--version"),
            "nats_py": _package("nats-py"),
            "ovs_python": _package("ovs"),
        },
    }


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _cpu() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return None


def _package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tool(name: str, option: str) -> str | None:
    """The last word of a tool's first line, such as `ovs-vswitchd (Open vSwitch) 3.1.0`."""
    beside = Path(sys.executable).with_name(name)
    executable = str(beside) if beside.exists() else shutil.which(name)
    if executable is None:
        return None
    try:
        result = subprocess.run([executable, option], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = result.stdout.split("\n", 1)[0].split()
    return words[-1].lstrip("v") if words else None
