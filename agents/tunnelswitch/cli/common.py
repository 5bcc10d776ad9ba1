"""What the commands share: options, the check of a site's name, logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunnelswitch.config import Deployment, SiteKind
from tunnelswitch.config.problems import suggestion
from tunnelswitch.errors import ConfigError

ConfigOption = Annotated[Path, typer.Option("--config", help="The deployment file (TOML).")]
SiteOption = Annotated[str, typer.Option("--site", help="Which of the file's sites this is.")]


def known_site(deployment: Deployment, site: str) -> SiteKind:
    """The kind of a site.

    Raises:
        ConfigError: there is no such site.
    """
    found = deployment.sites.get(site)
    if found is None:
        raise ConfigError("--site", f"{site!a} is no site", suggestion(site, deployment.sites, "sites"))
    return found.kind


def set_up_logs_for(process: str, site: str = "") -> None:
    """Log as `process`, with the site if it is at one; a command at no site is a person's: only trouble is logged."""
    from tunnelswitch.telemetry.logs import set_up_logs

    set_up_logs(quiet=not site, context={"site": site, "process": process} if site else {"process": process})
