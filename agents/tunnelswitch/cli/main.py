"""The commands. Heavy parts are imported by the command that needs them: an agent stays small, `version` quick.

Exit status: 0 done, or stopped by SIGTERM or SIGINT; 1 something failed; 2 the deployment file or the call is wrong.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tunnelswitch.cli import operator
from tunnelswitch.cli.common import ConfigOption, SiteOption, known_site, set_up_logs_for
from tunnelswitch.config import SiteKind, load
from tunnelswitch.errors import ConfigError, TunnelswitchError

app = typer.Typer(
    name="tunnelswitch",
    help="Failover of stateful services over a WAN: quorum, one guarded tunnel switch, measured downtime.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

pki = typer.Typer(help="Keys and certificates.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(pki, name="pki")


class Format(StrEnum):
    """How `status` writes."""

    PRETTY = "pretty"
    JSON = "json"


@app.command()
def agent(config: ConfigOption, site: SiteOption) -> None:
    """Run the agent of a site until SIGTERM."""
    _end_quietly_on_signals()
    deployment = load(config)
    known_site(deployment, site)
    set_up_logs_for("agent", site)
    from tunnelswitch.processes.agent import run_agent

    asyncio.run(run_agent(deployment, site))


@app.command()
def switcher(config: ConfigOption, site: SiteOption) -> None:
    """Run the switcher beside a gateway until SIGTERM."""
    _end_quietly_on_signals()
    deployment = load(config)
    kind = known_site(deployment, site)
    if kind is not SiteKind.GATEWAY:
        gateways = ", ".join(name for name, that in deployment.sites.items() if that.kind is SiteKind.GATEWAY)
        raise ConfigError(f"sites.{site}.kind", f"is {kind}, and a switcher runs at gateways", f"gateways: {gateways}")
    set_up_logs_for("switcher", site)
    from tunnelswitch.processes.switcher import run_switcher

    asyncio.run(run_switcher(deployment, site))


@app.command()
def carry(config: ConfigOption, site: SiteOption) -> None:
    """Carry the checkpoints of a site's virtual machines over T1, compressed, until SIGTERM."""
    from tunnelswitch.processes.carry import ENDS, run_carriers

    # Before there is any thread: one without this mask would take the signal, and the main thread wait on.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    deployment = load(config)
    known_site(deployment, site)
    set_up_logs_for("carry", site)
    run_carriers(deployment, site)


@app.command()
def init(config: ConfigOption) -> None:
    """Create the epoch store and the records that are missing. Run it once per deployment; again does no harm."""
    deployment = load(config)
    set_up_logs_for("init")
    from tunnelswitch.processes.init import run_init

    for group, created in asyncio.run(run_init(deployment)).items():
        print(f"{group}: {'record created' if created else 'has a record, left as it is'}")


@app.command()
def darken(config: ConfigOption, site: SiteOption) -> None:
    """At boot, before ovs-vswitchd: remove the site's client tunnels until its agent knows what is true."""
    deployment = load(config)
    known_site(deployment, site)
    set_up_logs_for("darken", site)
    from tunnelswitch.processes.darken import run_darken

    removed = asyncio.run(run_darken(deployment, site))
    print(f"{site}: {', '.join(removed) if removed else 'no client tunnel'} removed")


@app.command()
def validate(config: ConfigOption) -> None:
    """Check a deployment file and show everything that is wrong with it."""
    deployment = load(config)
    detection = deployment.detection
    sites, groups, services = len(deployment.sites), len(deployment.groups), len(deployment.services)
    print(
        f"{config}: cluster {deployment.cluster.name}, sites: {sites}, groups: {groups}, services: {services}; "
        f"a site counts as silent after {detection.window_seconds * 1000:g} ms, "
        f"where measurements ask for more after {detection.longest_window_seconds * 1000:g} ms at most"
    )


@app.command()
def status(
    config: ConfigOption,
    form: Annotated[Format, typer.Option("-f", "--format", help="For people or for programs.")] = Format.PRETTY,
) -> None:
    """Show the records and the processes; exit status 1 unless all is well."""
    deployment = load(config)
    set_up_logs_for("status")
    from tunnelswitch.cli.status import is_well, print_json, print_pretty
    from tunnelswitch.processes.status import collect

    report = asyncio.run(collect(deployment))
    (print_json if form is Format.JSON else print_pretty)(report)
    if not is_well(report):
        raise typer.Exit(1)


@pki.command("init")
def pki_init(
    config: ConfigOption,
    out: Annotated[Path, typer.Option("--out", help="Where to; made if need be.", file_okay=False)],
    renew: Annotated[bool, typer.Option("--renew", help="Make every certificate anew, for the same keys.")] = False,
) -> None:
    """Make every key and certificate that is missing, and what NATS has to know of them. Keeps what is there."""
    deployment = load(config)
    from tunnelswitch.pki.issue import issue

    report = issue(deployment, out, renew=renew)
    for what, names in (("made", report.made), ("made anew", report.renewed)):
        for name in names:
            print(f"{what}: {out / name}")
    for name, end in report.ending.items():
        print(f"ends on {end}: {out / name}; run again with --renew")
    print(f"kept as it was: {len(report.kept)} files")


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    print(f"tunnelswitch {installed('tunnelswitch')}")


operator.register(app)


def run() -> NoReturn:
    """The entry point: no error leaves as a traceback."""
    try:
        app()
    except TunnelswitchError as error:
        for line in error.diagnostics().splitlines():
            _complain(line)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its end
        sys.exit(1)
    except Exception as error:
        if os.environ.get("TUNNELSWITCH_LOG_LEVEL", "").lower() == "debug":
            raise
        _complain(f"internal error: {error!a}; run again with TUNNELSWITCH_LOG_LEVEL=debug and report what it says")
        sys.exit(1)
    sys.exit(0)


def _complain(line: str) -> None:
    print(f"tunnelswitch: {line}", file=sys.stderr)


def _end_quietly_on_signals() -> None:
    """Until the event loop takes the signals over, they end us with status 0 as well."""

    def stop(number: int, frame: object) -> NoReturn:
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
