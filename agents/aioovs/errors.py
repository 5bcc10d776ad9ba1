"""Everything aioovs raises, in one tree.

    AioOvsError
    ├── ConnectError            no connection could be made (address, TLS files, server absent or mute)
    │   └── SchemaError         connected, but the server does not have the database, table or column asked for
    ├── NotConnected            asked for something while there is no connection; nothing was sent
    ├── ConnectionLost          the connection broke while a transaction was under way; its outcome is unknown
    ├── TransactionTimeout      the deadline passed; what was sent may still land
    ├── TransactionError        the transaction was refused; nothing was written
    │   ├── CommandError        a command could not be built; nothing was sent
    │   ├── GuardFailed         the guarded key does not hold the expected value
    │   └── Conflict            another writer changed what a command had read
    └── DatabaseClosed          the Database was closed; also ends every iterator of changes

Each text says what to do. Errors of one operation never break the connection.
"""

# The names say what happened; an Error suffix would add nothing.
# ruff: noqa: N818
from __future__ import annotations


class AioOvsError(Exception):
    """The root of this package's errors."""


class ConnectError(AioOvsError):
    """No connection to the database server could be made."""


class SchemaError(ConnectError):
    """The server lacks the database, a table or a column that was asked for."""


class NotConnected(AioOvsError):
    """There is no connection now. Nothing was sent; use `Database.wait_connected()` or try again later."""


class ConnectionLost(AioOvsError):
    """The connection broke under a transaction.

    `committed` is True when the commit was acknowledged before (only `applied` is unknown); None when the commit
    itself is unknown: read the rows again after reconnecting.
    """

    def __init__(self, text: str, *, committed: bool | None = None) -> None:
        super().__init__(text)
        self.committed = committed


class TransactionTimeout(AioOvsError):
    """The deadline passed.

    `sent` False: nothing left this process. `committed` True: the commit was acknowledged (as `next_cfg`) but
    ovs-vswitchd has not applied it yet. Otherwise the transaction may still land later, however late; a guard is
    what makes that harmless.
    """

    def __init__(self, text: str, *, sent: bool, committed: bool = False, next_cfg: int | None = None) -> None:
        super().__init__(text)
        self.sent = sent
        self.committed = committed
        self.next_cfg = next_cfg


class TransactionError(AioOvsError):
    """The server refused the transaction; nothing was written. Carries the server's own words."""


class CommandError(TransactionError):
    """A command could not be built (unknown bridge, bad value, ...); nothing was sent."""


class GuardFailed(TransactionError):
    """The guard did not hold; nothing was written.

    `expected` is what the guard asked for (None: key absent), `held` what the key holds now (None: absent), and
    `row_exists` is False when the guarded row itself is gone.
    """

    def __init__(self, text: str, *, expected: str | None, held: str | None, row_exists: bool) -> None:
        super().__init__(text)
        self.expected = expected
        self.held = held
        self.row_exists = row_exists


class Conflict(TransactionError):
    """Another writer changed, at the same moment, a column that a command had read; nothing was written.

    Commands are never re-run silently: read again, decide again, and call `transact` again.
    """


class DatabaseClosed(AioOvsError):
    """The Database was closed, or its keeper failed for good."""
