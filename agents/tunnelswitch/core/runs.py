"""Which start of each service's process a record speaks of: `pbx=ab12,db=cd34`.

A proof counts only for the run that the record names, so that the end of an earlier process moves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping


def join_runs(runs: Mapping[str, str]) -> str:
    """The text form; empty if any service has no run, because then the group cannot be spoken of as a whole."""
    if not runs or not all(runs.values()):
        return ""
    return ",".join(f"{service}={run}" for service, run in sorted(runs.items()))


def names_run(text: str, service: str, run: str) -> bool:
    """Does the record's text name exactly this run of the service?"""
    return bool(run) and f"{service}={run}" in text.split(",")
