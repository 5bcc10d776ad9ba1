"""The subjects of the epoch store: for its adapter, and for the permissions of those who may use it."""

from __future__ import annotations

from tunnelswitch.bus import subjects
from tunnelswitch.bus.access import JETSTREAM_API

FIND_META_LEADER = "$SYS.REQ.SERVER.PING.JSZ"
"""In the system account. Asked for `leader_only`, JetStream's own leader alone answers."""
MOVE_META_LEADER = "$JS.API.META.LEADER.STEPDOWN"


class StoreSubjects:
    """Names of one deployment's bucket (a JetStream stream) and what is asked of it.

    Args:
        cluster: the deployment's name; the bucket is `tunnelswitch-CLUSTER`.
        api: where JetStream's API is to be found.

    Raises:
        BusError: a name cannot be part of a subject.
    """

    READ, INFO, STEP_DOWN, CREATE = "STREAM.MSG.GET", "STREAM.INFO", "STREAM.LEADER.STEPDOWN", "STREAM.CREATE"

    def __init__(self, cluster: str, api: str = JETSTREAM_API) -> None:
        self.bucket = f"tunnelswitch-{subjects.checked_token(cluster, 'cluster name')}"
        self.stream = f"KV_{self.bucket}"
        self.keys = f"$KV.{self.bucket}"
        self.every_key = f"{self.keys}.*"
        self.republished = f"{subjects.PREFIX}.{cluster}.{subjects.RECORD.name}"
        self._api = api

    def key(self, group: str) -> str:
        """Where a group's record is written."""
        return f"{self.keys}.{subjects.checked_token(group, 'group')}"

    def mark(self, source: str) -> str:
        """What a confirmed read of `source` writes."""
        return f"{self.keys}.read.{subjects.checked_token(source.replace('/', '-'), 'source')}"

    def ask(self, what: str) -> str:
        """A question about the stream: READ, INFO, STEP_DOWN or CREATE."""
        return f"{self._api}.{what}.{self.stream}"
