"""What processes are called: a site's name is its agent, `switcher@SITE` a gateway's switcher."""

from __future__ import annotations


def switcher_at(gateway: str) -> str:
    return f"switcher@{gateway}"


def site_of(name: str) -> str:
    """Where a process runs."""
    return name.removeprefix("switcher@")
