"""The documentation's page is brought up to date between its marks, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnelswitch_lab.options import LabError
from tunnelswitch_lab.paper.options import PaperOptions, chosen_parts
from tunnelswitch_lab.paper.pages import BEGIN, END, FIGURES, measured, replaced, update

ROOT = Path(__file__).parents[2]


def test_tables_and_figures_are_replaced_and_the_prose_stays(options: PaperOptions, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "README.md").write_text(f"Before.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n", encoding="utf-8")
    changed = update(options.out, docs)
    assert [path.name for path in changed] == ["README.md", *(name for name in FIGURES)]
    text = (docs / "README.md").read_text(encoding="utf-8")
    assert text.startswith("Before.\n")
    assert text.endswith("\nAfter.\n")
    assert "old" not in text
    assert "| 40 | 80.0 (80 to 80) |" in text
    assert "| the lab's own RTP sender | original | 131.0 | 6 / 6 |" in text
    assert "| host-loss | process | 30.0 |" in text
    update(options.out, docs)
    assert (docs / "README.md").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{END}"])
def test_a_page_without_marks_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="once each"):
        replaced(text, "new")


def test_no_page_is_said(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="holds no page"):
        update(tmp_path, tmp_path / "nowhere")
    assert measured(tmp_path) == "Nothing was measured.\n"


def test_the_page_of_the_repository_can_be_brought_up_to_date() -> None:
    page = (ROOT / "docs/reproduction/README.md").read_text(encoding="utf-8")
    assert "\n\nnew\n\n" in replaced(page, "new")


def test_parts_are_chosen_by_name() -> None:
    assert chosen_parts("report, fig4") == ("fig4", "report")
    assert chosen_parts("") == ()
    with pytest.raises(LabError, match="'fig6' is not known: fig4, fig5, phases, report"):
        chosen_parts("fig6")
