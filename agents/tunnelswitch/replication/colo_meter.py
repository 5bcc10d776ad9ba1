"""How many bytes a network device has carried: what a checkpoint cost on T1, since QEMU counts none in this state.

Both directions, acknowledgements included; whatever else uses the device is counted too. A device that is not there
counts nothing.
"""

from __future__ import annotations

from pathlib import Path

_TABLE = Path("/proc/thread-self/net/dev")
_RECEIVED, _SENT = 0, 8  # columns of proc_pid_net(5), net/dev


class DeviceMeter:
    """The growth of a device's counters; an empty name is no device."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._last = self._total()

    def grown_bytes(self) -> int:
        """Bytes since the last call; 0 if that cannot be told."""
        total, last = self._total(), self._last
        self._last = total
        return max(0, total - last) if last else 0

    def _total(self) -> int:
        if not self._device:
            return 0
        try:
            lines = _TABLE.read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            return 0
        for line in lines:
            name, _, columns = line.partition(":")
            if name.strip() == self._device:
                values = columns.split()
                return int(values[_RECEIVED]) + int(values[_SENT])
        return 0
