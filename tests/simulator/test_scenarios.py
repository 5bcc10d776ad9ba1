"""The stories in docs/scenarios are what the real decisions do today."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnelswitch_lab.simulator.scenarios import SCENARIOS, told

PAGES = Path(__file__).parents[2] / "docs" / "scenarios"


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_page_tells_what_happens(name: str) -> None:
    written = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert told(name) == written, "a decision changed: read the difference, then `tunnelswitch-lab scenarios`"


def test_there_is_no_page_without_a_story() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == {*SCENARIOS}
