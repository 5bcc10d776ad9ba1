"""An agent as in production, but for the drivers: its copies are only spoken of, and are always well.

So a machine with a few cores can host a thousand of them. What resuming a real copy takes is not measured.

    python -m tunnelswitch_lab.growth.copies --config FILE --site SITE
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from tunnelswitch.config import Service, load
from tunnelswitch.core.actions import Fence, Promote, TakeCheckpoint
from tunnelswitch.core.events import (
    CheckpointFailed,
    CheckpointTaken,
    FenceDone,
    FenceFailed,
    Promoted,
    PromotionFailed,
    ServiceSeen,
)
from tunnelswitch.core.facts import Protection
from tunnelswitch.ports import Emit
from tunnelswitch.processes.agent import run_agent

RUN = "r1"
_ASKED_SECONDS = 1.0


class Copy:
    """See ports.ServiceDriver."""

    health_failures = 0

    def __init__(self, service: str, emit: Emit, *, active: bool) -> None:
        self._service = service
        self._emit = emit
        self._active = active

    async def start(self) -> None:
        """It is seen when the agent listens, as by a driver that has to ask first."""
        asyncio.get_running_loop().call_later(_ASKED_SECONDS, self._tell)

    def _tell(self) -> None:
        role = "active" if self._active else "standby"
        self._emit(ServiceSeen(self._service, RUN, role, Protection.PROTECTED, in_sync=True))

    async def close(self) -> None:
        """Nothing runs."""

    async def checkpoint(self, action: TakeCheckpoint) -> CheckpointTaken | CheckpointFailed:
        return CheckpointFailed(self._service, action.request, "there is no state")

    async def promote(self, action: Promote) -> Promoted | PromotionFailed:
        self._emit(ServiceSeen(self._service, RUN, "active", Protection.UNPROTECTED, in_sync=False))
        return Promoted(self._service, RUN, 0.0)

    async def fence(self, action: Fence) -> FenceDone | FenceFailed:
        self._emit(ServiceSeen(self._service, "", "stopped", Protection.STOPPED, in_sync=False))
        return FenceDone(self._service, RUN)

    def allow_output(self, allowed: bool) -> None:
        """There is none."""

    def figures(self) -> Mapping[str, float]:
        return {}


def main() -> None:
    """Run the agent of one server site."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--site", required=True)
    arguments = parser.parse_args()
    deployment = load(arguments.config)
    preferred = {
        name for group in deployment.groups.values() if group.preferred == arguments.site for name in group.services
    }

    def make(name: str, service: Service, site: str, emit: Emit, count: Callable[[str], None]) -> Copy:
        return Copy(name, emit, active=name in preferred)

    asyncio.run(run_agent(deployment, arguments.site, make))


if __name__ == "__main__":
    main()
