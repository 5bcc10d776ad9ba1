"""docs/security.md shows the permissions as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from deployed import EXAMPLE

from tunnelswitch.config import load
from tunnelswitch.pki.identities import identities
from tunnelswitch.pki.matrix import BEGIN, END, table, write

PAGE = EXAMPLE.parents[1] / "docs/security.md"


def test_the_page_is_as_it_would_be_written_now() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == write(text, load(EXAMPLE)), "python -m tunnelswitch.pki.matrix deploy/example.toml docs/security.md"


def test_the_table_has_everybody() -> None:
    deployment = load(EXAMPLE)
    rows = table(deployment).splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [identity.name for identity in identities(deployment)]


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{END} {BEGIN}")
    with pytest.raises(ValueError, match="lacks"):
        write(page.read_text(), load(EXAMPLE))
    command = [sys.executable, "-m", "tunnelswitch.pki.matrix", str(EXAMPLE), str(page)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert page.read_text() == f"{END} {BEGIN}"
