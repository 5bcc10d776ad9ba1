"""A pair of Kamailios, started as two standbys, and nothing left of it afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kamailio_pair import SITES, Copy, connect, open_to_others, until


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Copy, Copy]]:
    monkeypatch.setattr("tunnelswitch.replication.watching.POLL_SECONDS", 0.2)
    open_to_others(tmp_path)
    primary, secondary = (Copy(site, tmp_path) for site in SITES)
    try:
        await connect((primary, secondary))
        for copy in (primary, secondary):
            copy.start()
            await copy.driver.start()
        await until(lambda: all(copy.is_seen("standby", in_sync=True) for copy in (primary, secondary)), "two standbys")
        yield primary, secondary
    finally:
        for copy in (primary, secondary):
            await copy.close()
