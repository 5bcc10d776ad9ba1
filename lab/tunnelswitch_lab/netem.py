"""Weather on the lab's WAN by the kernel: netem (tc-netem(8)) for delay, jitter, loss and rate.

It sits on the WAN's end of each site's cable, so that a frame from site to site meets it once, on its way in. tc(8) is
asked because pyroute2 takes netem's rate for that of an estimator (TCA_RATE), which the kernel refuses.
"""

from __future__ import annotations

import contextlib

from tunnelswitch_lab import procs
from tunnelswitch_lab.layout import Layout
from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.relay import Weather

_TOOL_SECONDS = 5.0
_NO_NETEM = "qdisc kind is unknown"


def settings(weather: Weather) -> list[str]:
    """A weather in the words of tc-netem(8), which spreads to both sides of its delay, a weather from its delay
    upwards. Raises ValueError for one with a rate in which frames overtake: netem keeps their order then."""
    if weather.rate_bits and not weather.in_order:
        raise ValueError("netem with a rate keeps frames in order: ask for a weather with in_order")
    half_seconds = weather.jitter_seconds / 2
    words = ["delay", _microseconds(weather.delay_seconds + half_seconds), _microseconds(half_seconds)]
    words += ["loss", f"{weather.loss * 100:g}%", "limit", str(weather.frames_max)]
    if weather.rate_bits:
        words += ["rate", f"{round(weather.rate_bits)}bit"]
    return words


def _microseconds(seconds: float) -> str:
    return f"{round(seconds * 1e6)}us"


async def put(layout: Layout, weather: Weather) -> bool:
    """Make this the weather on every link; False if this kernel has no netem. Raises LabError if it takes none."""
    words = settings(weather)
    try:
        for site in layout.sites:
            await _tc(layout, "add", site.wan_port, "netem", *words)
    except (RuntimeError, TimeoutError) as error:
        await remove(layout)
        if _NO_NETEM in str(error):
            return False
        raise LabError(f"no netem on the lab's WAN: {error}") from error
    except FileNotFoundError:  # no tc
        return False
    return True


async def remove(layout: Layout) -> None:
    """Calm again. What is calm already stays."""
    for site in layout.sites:
        with contextlib.suppress(RuntimeError, TimeoutError):
            await _tc(layout, "del", site.wan_port)


async def _tc(layout: Layout, act: str, device: str, *words: str) -> None:
    command = ["tc", "-n", layout.wan_namespace, "qdisc", act, "dev", device, "root", *words]
    await procs.check_output(command, _TOOL_SECONDS)
