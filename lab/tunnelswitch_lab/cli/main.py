"""Entry point: every command, and what a user's mistake looks like."""

from __future__ import annotations

import sys

from tunnelswitch_lab.cli import labs, runs, series, virtual
from tunnelswitch_lab.cli.common import app
from tunnelswitch_lab.options import LabError

_USAGE_STATUS = 2
__all__ = ["labs", "run", "runs", "series", "virtual"]


def run() -> None:
    """Entry point of the console script."""
    try:
        app(standalone_mode=True)
    except LabError as error:
        print(f"tunnelswitch-lab: {error}", file=sys.stderr)
        raise SystemExit(_USAGE_STATUS) from None
    except BrokenPipeError:
        raise SystemExit(_USAGE_STATUS) from None
