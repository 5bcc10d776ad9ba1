"""The protected service of the lab, its clients, and the commands that promote, fence and ask it.

Everything here talks to the product only as any other service would: by commands, files and datagrams.
Nothing here imports an agent.
"""

from pathlib import Path


def hooks_directory() -> Path:
    """Directory that holds the commands `promote`, `fence` and `status` for the exec driver."""
    return Path(__file__).resolve().parent / "hooks"
