"""The example's text, changed for a test, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnelswitch.config import DeploymentError, parse

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "deploy/example.toml").read_text(encoding="utf-8")
SITE = "[sites.secondary]"


def complaints(text: str) -> list[str]:
    with pytest.raises(DeploymentError) as caught:
        parse(text, "test.toml")
    return caught.value.diagnostics().splitlines()


def changed(old: str, new: str, count: int = 1) -> str:
    assert old in EXAMPLE
    return EXAMPLE.replace(old, new, count)
