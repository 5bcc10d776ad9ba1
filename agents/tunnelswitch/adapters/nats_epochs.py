"""The epoch store over JetStream KV: one key per group, compare-and-set, confirmed reads, a leader where we want it.

Has a connection of its own, so that a commit never waits behind heartbeats. A read is linearizable: the stream's leader
answers it, and then a majority of the replicas stores a mark that is only taken if that answer is still the last word
(NATS itself lets a leader that has lost its majority answer reads). Does not know what a record means.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, TypeVar

import msgspec
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, Header, RePublish, StorageType, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError

from tunnelswitch.bus import codec
from tunnelswitch.bus.access import ANONYMOUS, Access
from tunnelswitch.bus.connection import DEFAULT_TIMING, Connection, Timing
from tunnelswitch.bus.requests import (
    IN_PROCESS,
    PAUSE_SECONDS,
    TRY_SECONDS,
    WRONG_LAST_SEQUENCE,
    AskAgain,
    Requests,
    passes,
)
from tunnelswitch.bus.store import StoreSubjects
from tunnelswitch.bus.together import Together
from tunnelswitch.bus.wire import describe
from tunnelswitch.errors import (
    FIRST_OR_LOST,
    BadMessageError,
    CommitRefusedError,
    CommitUnknownError,
    EpochStoreError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nats.js import JetStreamContext
    from nats.js.api import ClusterInfo, RawStreamMsg

    from tunnelswitch.bus.requests import Call
    from tunnelswitch.core.facts import GroupRecord

_T = TypeVar("_T")

HISTORY = 8
MOST_REPLICAS = 3
_EXPECTED = Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value
_EXPECTED_OF = "Nats-Expected-Last-Subject-Sequence-Subject"
_NO_STREAM = 10059
_NO_MESSAGE = 10037
_PIN_SECONDS = 3.0
_PIN_TRY_SECONDS = 0.2
"""While the leader moves nobody answers for it."""
_LOOKS = 20
"""A replica counts as behind for the moment in which a write is on its way: look again before giving up."""


class NatsEpochs:
    """`ports.Epochs` on JetStream.

    Args:
        urls: every server of the cluster.
        cluster: the deployment's name; the bucket is `tunnelswitch-CLUSTER`.
        source: who we are, such as `gateway/switcher`.
        servers: `server_name` of the NATS node by site, in the order in which sites should lead the stream.
        preferred_url: the server beside this site.
        access: who we are, and whom we trust.
        awaited: somebody waits in `require`, see `Connection`.

    Raises:
        BusError: a name cannot be part of a subject.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        cluster: str,
        source: str,
        servers: Mapping[str, str],
        preferred_url: str | None = None,
        access: Access = ANONYMOUS,
        timing: Timing = DEFAULT_TIMING,
        awaited: bool = False,
    ) -> None:
        self._subjects = StoreSubjects(cluster, access.jetstream_api)
        self.bucket = self._subjects.bucket
        self._servers = dict(servers)
        self._stream = self._subjects.stream
        self._mark = self._subjects.mark(source)
        self._connection = Connection(
            urls,
            name=f"{source} epochs",
            preferred_url=preferred_url,
            access=access,
            timing=timing,
            awaited=awaited,
        )
        self._requests = Requests(self._connection, access.jetstream_api)
        self._reads = Together(self._read_one, self._read_many)

    @property
    def connected(self) -> bool:
        """Is there a server that takes requests now? That the store has a majority is another matter."""
        return self._connection.client is not None

    async def start(self) -> None:
        """Begin to connect, and return at once."""
        await self._connection.start()

    async def require(self, limit_seconds: float) -> None:
        """Wait until a server lets us in.

        Raises:
            BusUnreachableError: none does in time.
        """
        await self._connection.require(limit_seconds)

    async def close(self) -> None:
        """End the connection. A commit under way becomes unknown."""
        await self._connection.close()

    async def read(self, group: str, deadline_seconds: float) -> tuple[GroupRecord | None, int]:
        """The record and its revision; (None, 0) when there is none.

        Reads that are asked for in the same step of the loop are confirmed by one mark.

        Raises:
            EpochStoreError: no confirmed answer before the deadline, or what is stored is not a record.
        """
        stored = await self._reads.read(self._subjects.key(group), deadline_seconds, f"record of group {group!r}")
        if stored is None:
            return None, 0
        try:
            record = codec.decode_record(stored.data or b"")
        except BadMessageError as error:
            raise EpochStoreError(
                f"key {group!r} of bucket {self.bucket} (revision {stored.seq}) holds no record: {error.problem}",
                "somebody else has written or deleted it; restore it with `tunnelswitch recover`",
            ) from error
        return record, stored.seq or 0

    async def revision(self, group: str, deadline_seconds: float) -> int:
        """The revision of whatever stands under the group's key, record or not; 0 if nothing does. For `recover`.

        Raises:
            EpochStoreError: no answer before the deadline.
        """
        key = self._subjects.key(group)
        what = f"record of group {group!r}"
        stored = await self._until(lambda jetstream: self._last(jetstream, key), deadline_seconds, what)
        return 0 if stored is None else stored.seq or 0

    async def commit(self, record: GroupRecord, revision: int, deadline_seconds: float) -> int:
        """Replace the record of exactly this revision; returns the new one.

        Raises:
            CommitRefusedError: another revision is there; nothing was written.
            CommitUnknownError: no answer before the deadline; it may land.
        """
        if revision <= 0:
            raise CommitRefusedError(f"group {record.group!r} has no record to replace", FIRST_OR_LOST)
        return await self._write(record, revision, deadline_seconds)

    async def create(self, record: GroupRecord, deadline_seconds: float = 5.0) -> int:
        """Write a group's first record; returns its revision. For `init` alone.

        Raises:
            CommitRefusedError: the group has a record, or had one that was deleted.
            CommitUnknownError: no answer before the deadline; it may land.
        """
        return await self._write(record, 0, deadline_seconds)

    async def ensure_bucket(self, deadline_seconds: float = 30.0) -> None:
        """Make the bucket, unless there is one. For `init` alone; waits until JetStream has a leader.

        Raises:
            EpochStoreError: JetStream does not answer in time, or there is a bucket with other settings.
        """
        await self._until(
            lambda jetstream: jetstream.add_stream(self._configuration()),
            deadline_seconds,
            f"bucket {self.bucket}",
        )

    async def pin_leader(self, avoid: tuple[str, ...]) -> str | None:
        """Move the stream's leader off the sites in `avoid` if it is there, to the first site of `servers` that has
        a replica that is up to date. Returns the site of the leader then: one of `avoid` if there is no such replica.

        Raises:
            EpochStoreError: the store does not answer.
        """
        avoided = {self._servers[site] for site in avoid if site in self._servers}
        looks = itertools.count(1)

        async def pinned(jetstream: JetStreamContext) -> str | None:
            cluster = (await jetstream.stream_info(self._stream)).cluster
            if cluster is None:
                return None  # one server, no cluster
            if cluster.leader not in avoided and cluster.leader is not None:
                return cluster.leader
            current = _up_to_date(cluster) - avoided
            target = next((name for name in self._servers.values() if name in current), None)
            if cluster.leader is not None and target is not None:
                await self._step_down(target)
            elif cluster.leader is not None and next(looks) > _LOOKS:
                return cluster.leader
            raise AskAgain("the leader has not moved yet")

        leader = await self._until(pinned, _PIN_SECONDS, f"leader of stream {self._stream}", _PIN_TRY_SECONDS)
        return next((site for site, name in self._servers.items() if name == leader), None)

    def _configuration(self) -> StreamConfig:
        """A KV bucket that any KV client can read, less what would let one drop a record's history.

        No direct reads: any replica answers those, with whatever it has.
        """
        return StreamConfig(
            name=self._stream,
            subjects=[f"{self._subjects.keys}.>"],
            storage=StorageType.FILE,
            num_replicas=max(1, min(MOST_REPLICAS, len(self._servers))),
            max_msgs_per_subject=HISTORY,
            max_msg_size=-1,
            discard=DiscardPolicy.NEW,
            deny_delete=True,
            deny_purge=True,
            allow_rollup_hdrs=False,
            allow_direct=False,
            republish=RePublish(
                src=f"{self._subjects.keys}.*",
                dest=f"{self._subjects.republished}.{{{{wildcard(1)}}}}",
            ),
        )

    async def _read_one(self, key: str, deadline_seconds: float, what: str) -> RawStreamMsg | None:
        async def confirmed(jetstream: JetStreamContext) -> RawStreamMsg | None:
            stored = await self._last(jetstream, key)
            await self._confirm(jetstream, key, 0 if stored is None else stored.seq or 0)
            return stored

        return await self._until(confirmed, deadline_seconds, what)

    async def _read_many(self, keys: Sequence[str], deadline_seconds: float) -> dict[str, RawStreamMsg | None]:
        """One mark for all: it is taken only if no record at all is newer than the newest one that was seen."""

        async def confirmed(jetstream: JetStreamContext) -> dict[str, RawStreamMsg | None]:
            newest = await self._last(jetstream, self._subjects.every_key)
            stored = await asyncio.gather(*(self._last(jetstream, key) for key in keys))
            sequence = max((message.seq or 0 for message in (newest, *stored) if message is not None), default=0)
            await self._confirm(jetstream, self._subjects.every_key, sequence)
            return dict(zip(keys, stored, strict=True))

        return await self._until(confirmed, deadline_seconds, "records")

    async def _confirm(self, jetstream: JetStreamContext, keys: str, revision: int) -> None:
        await jetstream.publish(self._mark, headers={_EXPECTED: str(revision), _EXPECTED_OF: keys})

    async def _last(self, jetstream: JetStreamContext, key: str) -> RawStreamMsg | None:
        try:
            return await jetstream.get_msg(self._stream, subject=key, direct=False)
        except APIError as error:
            if error.err_code == _NO_MESSAGE:
                return None
            raise

    async def _write(self, record: GroupRecord, revision: int, deadline_seconds: float) -> int:
        """Sent again only if it surely reached no leader: else the second could be refused because of the first."""
        what = f"commit of {record.stamp} for group {record.group!r}"
        payload = codec.encode_record(record)
        key = self._subjects.key(record.group)
        try:
            async with asyncio.timeout(deadline_seconds):
                while True:
                    try:
                        answer = await self._requests.ask(
                            lambda jetstream: jetstream.publish(key, payload, headers={_EXPECTED: str(revision)})
                        )
                    except (APIError, NoStreamResponseError) as error:
                        if isinstance(error, APIError) and error.err_code != IN_PROCESS:
                            raise
                        await asyncio.sleep(PAUSE_SECONDS)
                    else:
                        return answer.seq
        except APIError as error:
            if error.err_code == WRONG_LAST_SEQUENCE:
                raise CommitRefusedError(f"{what}: revision {revision} is not the last one") from error
            raise CommitUnknownError(f"{what}: {error.description or error}") from error
        except (NatsError, OSError) as error:
            raise CommitUnknownError(f"{what}: {describe(error)}") from error

    async def _step_down(self, server: str) -> None:
        client = await self._connection.wait_connected()
        answer = await client.request(
            self._subjects.ask(StoreSubjects.STEP_DOWN),
            msgspec.json.encode({"placement": {"preferred": server}}),
            timeout=TRY_SECONDS,
        )
        error = msgspec.json.decode(answer.data).get("error")
        if error:
            raise APIError.from_error(error)

    async def _until(self, call: Call[_T], deadline_seconds: float, what: str, try_seconds: float = TRY_SECONDS) -> _T:
        try:
            return await self._requests.until(call, deadline_seconds, try_seconds)
        except (NatsError, OSError) as error:
            raise self._error(what, error) from error

    def _error(self, what: str, error: BaseException) -> EpochStoreError:
        if isinstance(error, APIError) and not passes(error):
            if error.err_code == _NO_STREAM:
                return EpochStoreError(f"bucket {self.bucket} does not exist", FIRST_OR_LOST)
            return EpochStoreError(f"{what}: JetStream says {error.description!r} ({error.err_code})")
        problem = "no majority confirms it" if isinstance(error, APIError) else describe(error)
        return EpochStoreError(f"{what}: {problem}", "most NATS nodes must be up and see each other")


def _up_to_date(cluster: ClusterInfo) -> set[str]:
    """The servers that could lead at once: another one would lose the election, and the next takes seconds."""
    return {peer.name for peer in cluster.replicas or [] if peer.name and peer.current and not peer.offline}
