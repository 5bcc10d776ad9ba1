"""A lab as its switcher sees it, from the metrics."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from tunnelswitch_lab import netns
from tunnelswitch_lab.testbed import Testbed


@dataclass
class View:
    """What the switcher says of the group: who is active, in which epoch, with a standby or not."""

    bed: Testbed
    values: dict[str, float] = field(default_factory=dict)

    async def look(self) -> None:
        gateway = self.bed.layout.gateway
        _, body = await netns.http_get(gateway.namespace, gateway.switcher_metrics, "/metrics")
        lines = [line.rpartition(" ") for line in body.decode().splitlines() if not line.startswith("#")]
        self.values = {name: float(value) for name, _, value in lines}

    async def is_so(self, active: str, *, protected: bool) -> bool:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            await self.look()
        serves = self.values.get(f'tunnelswitch_active_site{{group="voip",site="{active}"}}') == 1
        return serves and (not protected or self.values.get('tunnelswitch_protected{group="voip"}') == 1)

    async def until(self, active: str, limit_seconds: float, *, protected: bool) -> None:
        """Raises TimeoutError with what is waited for."""
        what = f"{active} as the active{' with a standby in sync' if protected else ''}"
        await netns.wait_for(lambda: self.is_so(active, protected=protected), what, limit_seconds, 0.2)
