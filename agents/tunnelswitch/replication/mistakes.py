"""Mistakes of ours, made into something that a driver's watch can complain of."""

from __future__ import annotations

from typing import Any

from tunnelswitch.errors import DriverError


def unforeseen(error: Exception, log: Any) -> DriverError:
    """What to complain of and go on: a watch that ends says the same of its copy for ever. `log` gets the trace."""
    log.debug("internal_error", exc_info=error)
    return DriverError(f"internal error: {error!r}", "please report it, with a log of TUNNELSWITCH_LOG_LEVEL=debug")
