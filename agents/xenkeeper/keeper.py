"""One guest on one host: which of its domains is what, and the one thing that is done for it now.

A host without the guest takes checkpoints in; a host where it runs sends them. Who serves is decided elsewhere: an
agent promotes and fences (`control`), and nothing here promotes or ends a guest that runs without being told to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from xenkeeper.domains import domid_of, run_name
from xenkeeper.looking import Looker
from xenkeeper.receiving import Copy
from xenkeeper.sending import Attempt, Sender, Sent
from xenkeeper.settings import Settings, address
from xenkeeper.xl import Xl, XlError

RETRY_SECONDS = 1.0
RETRY_MAX_SECONDS = 5.0
# A peer that accepts and then hangs has held the guest each time.
HUNG_RETRY_SECONDS = 10.0
HUNG_RETRY_MAX_SECONDS = 300.0
OBSTACLE_SECONDS = 5.0
_SEEN_POLL_SECONDS = 0.05

Tell = Callable[[dict[str, Any]], None]


class Keeper:
    """The keeper of one guest.

    Args:
        boot: the name of this boot of the host.
        socket: where the transport of `xl remus` reaches us.
        tell: takes every event for the agents.
    """

    def __init__(self, xl: Xl, settings: Settings, boot: str, socket: Path, tell: Tell) -> None:
        self.settings = settings
        self._xl, self._boot, self._socket, self._tell = xl, boot, socket, tell
        self._looker = Looker(xl, self._looked, self._domain_ended, self._problem)
        self._copy: Copy | None = None
        self._sender: Sender | None = None
        self._obstacle: tuple[int, str] = (-1, "")
        self._promoted_domid = -1
        self._sequence = 0
        self._told: dict[str, Any] = {}
        self._fencing = 0
        self._wake = asyncio.Event()
        self._making_room = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Begin to look, to listen and to protect. Raises OSError if nobody can listen at our address."""
        host, port = address(self.settings.listen)
        self._server = await asyncio.start_server(self._connected, host, port, limit=512 << 10, backlog=4)
        self._spawn(self._looker.run(self.settings.guest, self.settings.timeout_seconds))
        self._spawn(self._keep())

    async def close(self) -> None:
        """Stop for good. A guest that runs goes on alone; a copy is destroyed, for it would be resumed otherwise."""
        if self._server is not None:
            self._server.close()
        if self._sender is not None:
            self._sender.cut("the keeper stops")
        with contextlib.suppress(XlError):
            await self._drop()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------ what is known

    def state(self) -> dict[str, Any]:
        """What the guest's domain here is now."""
        looker, sender, copy = self._looker, self._sender, self._copy
        role, domid, in_sync, protection, sequence = "stopped", -1, False, "stopped", 0
        if self._active_domid >= 0:
            role, domid, sequence = "active", self._active_domid, self._sequence
            in_sync = sender is not None and sender.protected
            copying = sender is not None and sender.copying
            protection = "protected" if in_sync else "syncing" if copying else "unprotected"
        elif looker.incoming is not None and copy is not None and copy.alive and not copy.dropping:
            role, domid, sequence = "standby", looker.incoming.domid, copy.commits
            in_sync = copy.commits > 0
            protection = "protected" if in_sync else "syncing"
        return {
            "event": "state",
            "run": run_name(self._boot, domid) if domid >= 0 else "",
            "role": role,
            "protection": protection,
            "in_sync": in_sync,
            "sequence": sequence,
            "obstacle": self._obstacle[1] if domid == self._obstacle[0] else "",
            "ended": [run_name(self._boot, domid) for domid in looker.ended],
            "known": looker.fresh or bool(self._told),
        }

    @property
    def _active_domid(self) -> int:
        """The domain that runs by itself; -1 if none does. One that was promoted may still bear the other name."""
        looker = self._looker
        if looker.guest is not None:
            return looker.guest.domid
        return self._promoted_domid if self._promoted_domid >= 0 else -1

    def _say_state(self) -> None:
        state = self.state()
        if state["known"] and {**state, "sequence": 0} != {**self._told, "sequence": 0}:
            self._told = state
            self._tell(state)

    def _looked(self) -> None:
        self._say_state()
        self._wake.set()

    def _changed(self) -> None:
        copy = self._copy
        if copy is not None and copy.taken_over and copy.promoting and not self._looker.has_ended(copy.failover_domid):
            self._promoted_domid = copy.failover_domid
        self._say_state()
        self._looker.wake()
        self._wake.set()

    def _domain_ended(self, domid: int) -> None:
        if domid == self._promoted_domid:
            self._promoted_domid = -1
        self._tell({"event": "ended", "run": run_name(self._boot, domid)})

    def _problem(self, kind: str, text: str) -> None:
        self._tell({"event": "problem", "kind": kind, "text": text})

    # ------------------------------------------------------------------ the guest runs here

    async def _keep(self) -> None:
        """Protect the guest while it runs here, remove what a failed copy left while it does not."""
        retry, hung, loop = RETRY_SECONDS, HUNG_RETRY_SECONDS, asyncio.get_running_loop()
        not_before = 0.0
        while True:
            self._wake.clear()
            domid = self._active_domid
            if domid >= 0 and not self._fencing and loop.time() >= not_before:
                if await self._may_protect(domid):
                    attempt, committed = await self._protect(domid)
                    if committed:
                        retry, hung = RETRY_SECONDS, HUNG_RETRY_SECONDS
                    if attempt.hung:
                        not_before, hung = loop.time() + hung, min(2 * hung, HUNG_RETRY_MAX_SECONDS)
                    else:
                        not_before, retry = loop.time() + retry, min(2 * retry, RETRY_MAX_SECONDS)
                else:
                    not_before = loop.time() + OBSTACLE_SECONDS
            if not self._making_room.locked():
                async with self._making_room:
                    await self._remove_stale()
            pause = not_before - loop.time() if domid >= 0 else RETRY_MAX_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(_SEEN_POLL_SECONDS, pause)):
                    await self._wake.wait()

    async def _may_protect(self, domid: int) -> bool:
        """A disk that only one host has makes two machines out of one."""
        try:
            disks = await self._xl.writable_disks(domid, self.settings.timeout_seconds)
        except XlError as error:
            if domid in self._looker.living:
                self._problem("xl_failed", str(error))
            return False
        obstacle = f"writable disks that no checkpoint carries: {', '.join(disks)}" if disks else ""
        if obstacle and (domid, obstacle) != self._obstacle:
            self._problem("refused", obstacle)
        self._obstacle = (domid, obstacle)
        self._say_state()
        return not obstacle

    async def _protect(self, domid: int) -> tuple[Attempt, bool]:
        first = self._sequence = 0
        if self._xl.ledger.running():
            self._problem("xl_failed", "an xl of an earlier attempt has not ended; look with ps, and xl list")
            return Attempt("xl_failed", "", hung=True), False
        self._sender = Sender(self._xl, self.settings, self._socket, self._sent, self._say_state)
        try:
            attempt = await self._sender.protect(domid)
        finally:
            self._sender = None
            self._say_state()
            self._looker.wake()
        if attempt.kind:
            self._problem(attempt.kind, attempt.problem)
        return attempt, self._sequence > first

    def _sent(self, sent: Sent) -> None:
        self._sequence = sent.sequence
        self._tell(self._checkpoint("active", self._active_domid, sent.sequence, sent.pause_seconds, sent.size_bytes))

    def _checkpoint(
        self, role: str, domid: int, sequence: int, pause_seconds: float, size_bytes: int
    ) -> dict[str, Any]:
        return {
            "event": "checkpoint",
            "run": run_name(self._boot, domid),
            "role": role,
            "sequence": sequence,
            "pause_seconds": round(pause_seconds, 6),
            "bytes": size_bytes,
        }

    # ------------------------------------------------------------------ the guest's copy is here

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        copy = None
        try:
            async with self._making_room:
                if await self._make_room():
                    copy = self._copy = Copy(self._xl, self.settings, self._received, self._changed, self._problem)
            if copy is not None:
                await copy.serve(reader, writer)
        except XlError as error:
            self._problem("receive_failed", str(error))
        finally:
            writer.close()
            self._changed()

    async def _make_room(self) -> bool:
        """Is there neither guest nor copy here? An active that comes anew lives: what we hold of it is of the past."""
        copy = self._copy
        if copy is not None and copy.alive and (copy.connected or copy.promoting or not copy.served):
            return False
        await self._look()
        if self._active_domid >= 0:
            return False
        await self._drop()
        await self._remove_stale()
        return self._looker.incoming is None

    async def _drop(self) -> None:
        """Give up the copy that is held, if there is one. Raises XlError if its domain does not go."""
        copy = self._copy
        if copy is None or not copy.alive:
            return

        async def destroy() -> None:
            await self._look()
            if self._looker.incoming is not None:
                await self._xl.destroy(self._looker.incoming.domid, self.settings.timeout_seconds)

        await copy.drop(destroy)
        await self._look()

    async def _remove_stale(self) -> None:
        """A copy that no xl of ours holds came from one that failed, or from a former keeper: nobody can promote it."""
        incoming = self._looker.incoming
        if incoming is None or (self._copy is not None and self._copy.alive):
            return
        try:
            if incoming.domid == self._promoted_domid:
                await self._xl.rename(incoming.domid, self.settings.guest, self.settings.timeout_seconds)
            else:
                await self._xl.destroy(incoming.domid, self.settings.timeout_seconds)
                self._problem("stale_removed", f"{incoming.name}, domain {incoming.domid}, was destroyed")
            await self._look()
        except XlError as error:
            self._problem("xl_failed", str(error))

    def _received(self, sequence: int, size_bytes: int) -> None:
        incoming = self._looker.incoming
        if incoming is None:  # seen soon
            self._looker.wake()
            return
        self._say_state()
        self._tell(self._checkpoint("standby", incoming.domid, sequence, 0.0, size_bytes))

    async def _look(self) -> None:
        await self._looker.look(self.settings.guest, self.settings.timeout_seconds)

    # ------------------------------------------------------------------ what an agent asks for

    def expect(self, run: str) -> None:
        """An agent last heard of this run, perhaps from a former keeper: say so if it has ended."""
        domid = domid_of(run, self._boot)
        if domid is not None:
            self._looker.expect(domid)

    async def promote(self, run: str, limit_seconds: float) -> str:
        """Have the copy of this run go on from its last checkpoint. Returns what went wrong; empty when it runs."""
        copy, incoming = self._copy, self._looker.incoming
        if self._active_domid >= 0 and run == run_name(self._boot, self._active_domid):
            return ""
        if incoming is None or copy is None or not copy.alive:
            return "there is no copy of the guest here"
        here = run_name(self._boot, incoming.domid)
        if run and run != here:
            return f"run {run} is to take over, and {here} is here"
        if copy.promoting or copy.dropping:
            return f"the copy is already being {'promoted' if copy.promoting else 'given up'}"
        if not copy.commits:
            return "this copy holds no checkpoint yet"
        return await copy.promote(limit_seconds)

    async def checkpoint(self, run: str, limit_seconds: float) -> tuple[str, int]:
        """Wait for a checkpoint of this run that is begun after now and committed. Returns what went wrong, and its
        number."""
        here = self._active_domid
        if here < 0 or run != run_name(self._boot, here):
            return f"run {run} does not run here", 0
        if self._sender is None:
            return "the guest has no standby", 0
        try:
            async with asyncio.timeout(limit_seconds):
                return "", await self._sender.checkpoint()
        except TimeoutError:
            return f"no checkpoint was committed within {limit_seconds:.3g} s", 0
        except XlError as error:
            return str(error), 0

    async def fence(self, run: str, limit_seconds: float) -> str:
        """Destroy the domain of this run, and see it gone. Returns what went wrong."""
        domid = domid_of(run, self._boot)
        if domid is None:
            return f"run {run} is not of this boot of the host ({self._boot})"
        self._fencing += 1
        try:
            async with asyncio.timeout(limit_seconds):
                return await self._fence(domid)
        except TimeoutError:
            return f"domain {domid} still runs after {limit_seconds:.3g} s"
        except XlError as error:
            return str(error)
        finally:
            self._fencing -= 1

    async def _fence(self, domid: int) -> str:
        await self._look()
        looker = self._looker
        if looker.incoming is not None and domid == looker.incoming.domid:
            await self._drop()
        while domid in looker.living:
            if domid not in looker.mine:
                return f"domain {domid} is another guest"
            with contextlib.suppress(XlError):  # it may be going already; the list tells
                await self._xl.destroy(domid, self.settings.timeout_seconds)
            await self._look()
        return ""
