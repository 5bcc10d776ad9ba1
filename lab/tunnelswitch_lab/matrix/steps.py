"""What a fault is made of: small steps that compose. Each does one thing to a lab and says in its text what.

They judge nothing. Processes go by the names that `tunnelswitch-lab status` shows, such as `agent-primary`.
"""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass
from typing import Protocol

from tunnelswitch_lab import agents, faults, netns, procs, switches
from tunnelswitch_lab import layout as names
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.testbed import Testbed

_GONE_SECONDS = 5.0
_DEVICE_SECONDS = 5.0
_POLL_SECONDS = 0.2
_FRESH_SECONDS = 1.5  # a capture is half a second behind
SECOND_SWITCHER = "switcher-second"
_SECOND_METRICS_PORT = 9112


@dataclass(frozen=True)
class Stage:
    """What steps work on: a lab with a call through it. There is no recording while a case is prepared."""

    bed: Testbed
    recording: Recording | None = None


class Step(Protocol):
    """One step. `str(step)` tells a reader what it does."""

    async def act(self, stage: Stage) -> None:
        """Carry it out. Raises LabError, OSError, RuntimeError or TimeoutError if it cannot be done."""


@dataclass(frozen=True)
class Inject:
    """A fault of the plain catalogue (`tunnelswitch_lab.faults`), at a server site."""

    fault: str
    site: str = names.SERVERS[0]

    async def act(self, stage: Stage) -> None:
        await stage.bed.inject(faults.find(self.fault), self.site)

    def __str__(self) -> str:
        return f"{self.fault} at {self.site}"


@dataclass(frozen=True)
class Kill:
    """SIGKILL; the next step finds it gone."""

    process: str

    async def act(self, stage: Stage) -> None:
        proc = _signal(stage, self.process, signal.SIGKILL)
        await procs.wait_gone([proc.pid], _GONE_SECONDS)

    def __str__(self) -> str:
        return f"kill -9 {self.process}"


@dataclass(frozen=True)
class Stop:
    """SIGSTOP: it hangs."""

    process: str

    async def act(self, stage: Stage) -> None:
        _signal(stage, self.process, signal.SIGSTOP)

    def __str__(self) -> str:
        return f"kill -STOP {self.process}"


@dataclass(frozen=True)
class Continue:
    """SIGCONT, for what still lives: the system may have ended a copy that hung."""

    process: str

    async def act(self, stage: Stage) -> None:
        stage.bed.find(self.process).signal(signal.SIGCONT)

    def __str__(self) -> str:
        return f"kill -CONT {self.process}"


@dataclass(frozen=True)
class Start:
    """Start again what has ended, as an init system would."""

    process: str

    async def act(self, stage: Stage) -> None:
        stage.bed.start_again(self.process)

    def __str__(self) -> str:
        return f"start {self.process}"


@dataclass(frozen=True)
class StartSwitch:
    """Start ovs-vswitchd again and give its bridge the underlay address that went with it."""

    site: str

    async def act(self, stage: Stage) -> None:
        site = stage.bed.layout.site(self.site)
        stage.bed.start_again(f"vswitchd-{self.site}")

        async def given() -> bool:
            try:
                await switches.give_address(site)
            except LookupError:
                return False
            return True

        await netns.wait_for(given, f"br-phy of {self.site}", _DEVICE_SECONDS)

    def __str__(self) -> str:
        return f"start vswitchd-{self.site}"


@dataclass(frozen=True)
class StartSecondSwitcher:
    """Another switcher beside the same gateway, with a metrics address of its own; returns when it is ready."""

    async def act(self, stage: Stage) -> None:
        layout, gateway = stage.bed.layout, stage.bed.layout.gateway
        own = gateway.switcher_metrics
        other = own.replace(str(names.SWITCHER_METRICS_PORT), str(_SECOND_METRICS_PORT))
        configuration = layout.deployment_file.with_name("deployment-second.toml")
        configuration.write_text(layout.deployment_file.read_text().replace(own, other))
        command = [str(agents.executable()), "switcher", "--config", str(configuration), "--site", gateway.name]
        proc = stage.bed.spawn(gateway.name, command, name=SECOND_SWITCHER)
        await agents.wait_ready(proc, gateway.namespace, other)

    def __str__(self) -> str:
        return "start a second switcher"


@dataclass(frozen=True)
class Wait:
    """Let time pass."""

    seconds: float

    async def act(self, stage: Stage) -> None:
        await asyncio.sleep(self.seconds)

    def __str__(self) -> str:
        return f"{self.seconds:g} s pass"


@dataclass(frozen=True)
class UntilAnswered:
    """Wait until the call is answered again, no longer than so; whether it ever was is for the judge."""

    seconds: float

    async def act(self, stage: Stage) -> None:
        if stage.recording is None:
            raise LabError("nobody calls while a case is prepared")
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            arrivals = await asyncio.to_thread(stage.recording.arrivals)
            if arrivals and time.time() - arrivals[-1] < _FRESH_SECONDS:
                return
            await asyncio.sleep(_POLL_SECONDS)

    def __str__(self) -> str:
        return f"until the call is answered, {self.seconds:g} s at most"


@dataclass(frozen=True)
class Cut:
    """Take a site off the WAN."""

    site: str

    async def act(self, stage: Stage) -> None:
        await stage.bed.network.cut(self.site)

    def __str__(self) -> str:
        return f"cut {self.site} off"


@dataclass(frozen=True)
class Drop:
    """Have the WAN drop some frames; nft(8) writes the expression, `means` is for people."""

    match: str
    means: str

    async def act(self, stage: Stage) -> None:
        stage.bed.network.drop(self.match)

    def __str__(self) -> str:
        return self.means


@dataclass(frozen=True)
class Heal:
    """Undo every cut."""

    async def act(self, stage: Stage) -> None:
        await stage.bed.heal()

    def __str__(self) -> str:
        return "heal the network"


def _signal(stage: Stage, name: str, number: signal.Signals) -> procs.Proc:
    proc = stage.bed.find(name)
    if not proc.signal(number):
        raise LabError(f"{name} does not run, so it cannot get {number.name}")
    return proc
