"""How a protected copy fared during a soak: its checkpoints, what went wrong with them, and its memory."""

from __future__ import annotations

from typing import Any

from tunnelswitch_lab import layout as names
from tunnelswitch_lab.soak.watch import Watch

# What may not happen to a pair that nothing is done to.
_LOST = ("peer_lost", "sync_failed", "qmp_failed", "refused")


def checkpoints(watch: Watch) -> dict[str, Any]:
    """By server site, from its agent's metrics at the beginning and at the end."""
    return {site: _of(watch, site) for site in names.SERVERS if site in watch.last}


def _of(watch: Watch, site: str) -> dict[str, Any]:
    count, paused, size = (
        sum(watch.grown(site, name).values())
        for name in ("checkpoint_pause_seconds_count", "checkpoint_pause_seconds_sum", "checkpoint_bytes_total")
    )
    held = sum(watch.last[site].get("machine_resident_bytes", {}).values())
    grown = held - sum(watch.first[site].get("machine_resident_bytes", {}).values())
    went_wrong = watch.grown(site, "driver_problems_total")
    return {
        "checkpoints": int(count),
        "pause_mean_seconds": round(paused / count, 6) if count else None,
        "bytes_mean": round(size / count) if count else None,
        "problems": {kind: int(value) for kind, value in went_wrong.items() if value},
        "resident_bytes": int(held),
        "resident_grown_bytes": int(grown),
        "grown_bytes_per_checkpoint": round(grown / count) if count and held else None,
        "output_dropped": int(sum(watch.grown(site, "output_dropped_total").values())),
    }


def broken(soaked: dict[str, Any]) -> list[str]:
    """What of it is not as it must be."""
    wrong = []
    for site, figures in soaked.items():
        lost = {kind: number for kind, number in figures["problems"].items() if kind in _LOST}
        wrong += [f"checkpoints at {site}: {number} times {kind}" for kind, number in lost.items()]
        if figures["output_dropped"]:
            wrong.append(f"{figures['output_dropped']} frames of output were dropped at {site}")
    return wrong


def checkpoint_lines(soaked: dict[str, Any]) -> list[str]:
    """One line for the site that made them."""
    return [
        f"{figures['checkpoints']} checkpoints at {site}, pause {figures['pause_mean_seconds'] * 1e3:.1f} ms, "
        f"{(figures['bytes_mean'] or 0) / 1024:.0f} KiB; memory grew by {figures['resident_grown_bytes'] / 2**20:.0f} "
        f"MiB, {(figures['grown_bytes_per_checkpoint'] or 0) / 1024:.0f} KiB a checkpoint"
        for site, figures in soaked.items()
        if figures["checkpoints"] and figures["pause_mean_seconds"]
    ]
