"""The permissions as a table for people: `python -m tunnelswitch.pki.matrix DEPLOYMENT.toml docs/security.md` writes it
between two marks in a page. A test wants the page as it would be written now.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from tunnelswitch.config import Deployment, load
from tunnelswitch.errors import TunnelswitchError
from tunnelswitch.pki.identities import identities, permissions

BEGIN, END = "<!-- permissions: begin -->", "<!-- permissions: end -->"


def table(deployment: Deployment) -> str:
    """One row for each identity, in Markdown. Everybody's own inboxes are left out."""
    rows = ["| identity | account | may publish | may hear |", "|---|---|---|---|"]
    for identity in identities(deployment):
        allowed = permissions(deployment, identity)
        own = f"{identity.inbox}.>"
        cells = (_cell(name for name in names if name != own) for names in (allowed.publish, allowed.subscribe))
        rows.append(f"| `{identity.name}` | `{identity.account}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def write(page: str, deployment: Deployment) -> str:
    """The page with the table of this deployment between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table(deployment)}\n{END}{after}"


def _cell(names: Iterable[str]) -> str:
    return "<br>".join(f"`{name}`" for name in names) or "nothing"


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit status."""
    try:
        source, page = map(Path, arguments)
        page.write_text(write(page.read_text(encoding="utf-8"), load(source)), encoding="utf-8")
    except (OSError, ValueError, TunnelswitchError) as error:
        sys.stderr.write(f"matrix: {error}; give a deployment file and the page\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
