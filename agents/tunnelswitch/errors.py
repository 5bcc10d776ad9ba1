"""The whole error tree. `diagnostics()` is the one line a person sees: what is wrong, and what to do.

TunnelswitchError
├── ConfigError                 the deployment file: names the key
├── BusError
│   ├── BusUnreachableError     no NATS server answers
│   └── BadMessageError         a message that is not ours, not JSON, too large, of another version or sender
├── EpochStoreError             the store did not answer in time
│   ├── CommitRefusedError      another revision is there; nothing was written
│   ├── CommitUnknownError      no answer; the write may land
│   └── RecordMissingError      `init` has not been run, or the store was lost
├── RefusedError                the switchers will not do what an operator asks, and say why
├── DataPlaneError              OVSDB is not there, or a bridge is not ours to use
├── ClientPacketsError          the clients' device cannot be watched
├── DriverError                 a hook or hypervisor did not do as told
└── PkiError                    keys and certificates cannot be made
"""

from __future__ import annotations


class TunnelswitchError(Exception):
    """Root of the tree.

    Args:
        problem: what is wrong, naming the thing.
        remedy: what the operator can do about it.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy

    def diagnostics(self) -> str:
        """One line for a person."""
        return f"{self.problem}; {self.remedy}" if self.remedy else self.problem


class ConfigError(TunnelswitchError):
    """The deployment file cannot be used.

    Args:
        key: the TOML key, such as `groups.voip.standby`.
    """

    def __init__(self, key: str, problem: str, remedy: str = "") -> None:
        super().__init__(f"{key}: {problem}", remedy)
        self.key = key


class BusError(TunnelswitchError):
    """The message bus."""


class BusUnreachableError(BusError):
    """No NATS server answers."""


class BadMessageError(BusError):
    """A message that cannot be taken. `kind` is a metric label: not_json, too_large, version, type, invalid, subject or
    source."""

    def __init__(self, kind: str, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.kind = kind


class EpochStoreError(TunnelswitchError):
    """The epoch store did not answer."""


class CommitRefusedError(EpochStoreError):
    """Compare-and-set lost: nothing was written."""


class CommitUnknownError(EpochStoreError):
    """No acknowledgement: the write may land."""


FIRST_OR_LOST = "run `tunnelswitch init` if there never was one, `tunnelswitch recover` if it is lost"
"""What to do about a record that is not there: which of the two it is, only an operator knows."""


class RecordMissingError(EpochStoreError):
    """The group has no record."""

    def __init__(self, group: str) -> None:
        super().__init__(f"group {group} has no record", FIRST_OR_LOST)


class RefusedError(TunnelswitchError):
    """An operator's wish was refused, or nobody answered it."""


class DataPlaneError(TunnelswitchError):
    """OVSDB or a bridge."""


class ClientPacketsError(TunnelswitchError):
    """The clients' device."""


class DriverError(TunnelswitchError):
    """The replication driver."""


class PkiError(TunnelswitchError):
    """Keys and certificates could not be made."""
