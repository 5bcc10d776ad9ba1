"""aioovs: ovsdbapp's commands on the asyncio event loop, without threads.

    async with Database("unix:/run/openvswitch/db.sock") as db:
        await db.transact(db.api.add_br("br0"), wait_applied=True)

It knows nothing of what the switch is used for.
"""

from aioovs.changes import Change, Changes, Disconnected, Overflowed, Resynced, RowChange
from aioovs.commands import RemoveKeys, SetKeys
from aioovs.database import Database
from aioovs.errors import (
    AioOvsError,
    CommandError,
    Conflict,
    ConnectError,
    ConnectionLost,
    DatabaseClosed,
    GuardFailed,
    NotConnected,
    SchemaError,
    TransactionError,
    TransactionTimeout,
)
from aioovs.remotes import SslFiles
from aioovs.replica import RowView
from aioovs.transaction import Guard, Outcome

__all__ = [
    "AioOvsError",
    "Change",
    "Changes",
    "CommandError",
    "Conflict",
    "ConnectError",
    "ConnectionLost",
    "Database",
    "DatabaseClosed",
    "Disconnected",
    "Guard",
    "GuardFailed",
    "NotConnected",
    "Outcome",
    "Overflowed",
    "RemoveKeys",
    "Resynced",
    "RowChange",
    "RowView",
    "SchemaError",
    "SetKeys",
    "SslFiles",
    "TransactionError",
    "TransactionTimeout",
]
