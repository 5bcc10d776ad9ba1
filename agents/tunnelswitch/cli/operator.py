"""What operators ask for: moves, and changes of the record. Needs an operator's key where the bus has permissions."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from tunnelswitch.cli.common import ConfigOption, SiteOption, known_site, set_up_logs_for
from tunnelswitch.config import Deployment, SiteKind, load
from tunnelswitch.config.problems import suggestion
from tunnelswitch.errors import ConfigError

GroupOption = Annotated[str, typer.Option("--group", help="Which group; not needed if there is one only.")]
WaitOption = Annotated[float, typer.Option("--wait", min=1, max=3600, help="Seconds to wait for it.")]
EverybodyOption = Annotated[bool, typer.Option("--wait", help="Until every switcher has said that it knows.")]
WithinOption = Annotated[float, typer.Option("--within", min=1, max=3600, help="Seconds to wait for it.")]
WHY_MAX = 200


def switchover(
    config: ConfigOption,
    to: Annotated[str, typer.Option("--to", help="The site that shall serve.")],
    group: GroupOption = "",
    wait: WaitOption = 10.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say whether it would, and what is missing.")] = False,
) -> None:
    """Have another site serve a group: it hands over, in one epoch, or the reason is said and nothing moves."""
    deployment = load(config)
    chosen = _group(deployment, group)
    _server_of(deployment, chosen, to, "--to")
    set_up_logs_for("operator")
    from tunnelswitch.processes.operating import Operator

    async def ask() -> None:
        async with Operator.connected(deployment, print) as operator:
            if dry_run:
                print(f"{chosen}: {await operator.plan(chosen, to, wait)}")
                return
            record = await operator.switchover(chosen, to, wait)
            print(f"{chosen}: {record.active} is active in epoch {record.stamp.epoch}")

    asyncio.run(ask())


def drain(config: ConfigOption, site: SiteOption, group: GroupOption = "", wait: WaitOption = 10.0) -> None:
    """Empty a server site before maintenance: what serves there moves away, and nothing moves there until `undrain`."""
    _drain(load(config), site, group, wait, drained=True)


def undrain(config: ConfigOption, site: SiteOption, group: GroupOption = "", wait: WaitOption = 10.0) -> None:
    """Allow a drained site to serve again. Nothing moves back by itself."""
    _drain(load(config), site, group, wait, drained=False)


def pause(
    config: ConfigOption,
    group: GroupOption = "",
    why: Annotated[str, typer.Option("--why", help="What for; shown to everybody.", show_default=False)] = "",
    everybody: EverybodyOption = False,
    within: WithinOption = 10.0,
) -> None:
    """Have no group move by itself, not even from a dead site, until `resume`. Operators' wishes are still granted."""
    _pause(load(config), group, why, within, paused=True, everybody=everybody)


def resume(
    config: ConfigOption, group: GroupOption = "", everybody: EverybodyOption = False, within: WithinOption = 10.0
) -> None:
    """Allow automatic moves again, after `pause`."""
    _pause(load(config), group, "", within, paused=False, everybody=everybody)


def recover(
    config: ConfigOption,
    group: GroupOption = "",
    active: Annotated[str, typer.Option("--active", help="Who serves, if no gate shows it.")] = "",
    without: Annotated[list[str] | None, typer.Option("--without", help="A site that is surely off.")] = None,
) -> None:
    """Write the record of a group whose record was lost, above every mark that the sites hold. Nothing moves."""
    deployment = load(config)
    chosen = _group(deployment, group)
    if active:
        _server_of(deployment, chosen, active, "--active")
    for site in without or ():
        known_site(deployment, site)
    set_up_logs_for("recover")
    from tunnelswitch.processes.recovering import run_recover

    record = asyncio.run(run_recover(deployment, chosen, active=active, without=tuple(without or ())))
    print(f"{chosen}: record {record.stamp} written, {record.active} is active")


def reconfigure(
    config: ConfigOption,
    group: GroupOption = "",
    dark: Annotated[list[str] | None, typer.Option("--dark", help="A gateway that has no client tunnel.")] = None,
) -> None:
    """Bring a group's voters and gateways to those of the file, one at a time."""
    deployment = load(config)
    chosen = _group(deployment, group)
    set_up_logs_for("reconfigure")
    from tunnelswitch.processes.reconfiguring import run_reconfigure

    asyncio.run(run_reconfigure(deployment, chosen, dark=tuple(dark or ()), tell=print))


def _drain(deployment: Deployment, site: str, group: str, wait: float, *, drained: bool) -> None:
    kind = known_site(deployment, site)
    if kind is not SiteKind.SERVER:
        raise ConfigError(f"sites.{site}.kind", f"is {kind}, and only servers can be drained", "name a server site")
    served = [name for name, that in deployment.groups.items() if site in (that.preferred, that.standby)]
    chosen = [_group(deployment, group)] if group else served
    set_up_logs_for("operator")
    from tunnelswitch.processes.operating import Operator

    async def ask() -> None:
        async with Operator.connected(deployment, print) as operator:
            for name in chosen:
                await operator.drain(name, site, drained=drained, wait_seconds=wait)

    asyncio.run(ask())


def _pause(deployment: Deployment, group: str, why: str, within: float, *, paused: bool, everybody: bool) -> None:
    if len(why) > WHY_MAX or not why.isprintable():
        raise ConfigError("--why", f"is longer than {WHY_MAX} characters, or not one line", "say it shorter")
    chosen = [_group(deployment, group)] if group else list(deployment.groups)
    set_up_logs_for("operator")
    from tunnelswitch.processes.operating import Operator

    async def ask() -> None:
        async with Operator.connected(deployment, print) as operator:
            for name in chosen:
                await operator.pause(name, paused=paused, why=why, wait_seconds=within, everybody=everybody)

    asyncio.run(ask())


def _server_of(deployment: Deployment, group: str, site: str, option: str) -> None:
    servers = (deployment.groups[group].preferred, deployment.groups[group].standby)
    if site not in servers:
        raise ConfigError(option, f"{site!a} does not serve {group}", suggestion(site, servers, "its servers"))


def _group(deployment: Deployment, name: str) -> str:
    if not name and len(deployment.groups) == 1:
        return next(iter(deployment.groups))
    if name not in deployment.groups:
        problem = f"{name!a} is no group" if name else "is needed: there are several groups"
        raise ConfigError("--group", problem, suggestion(name, deployment.groups, "groups"))
    return name


def register(app: typer.Typer) -> None:
    """Put the commands on the command line."""
    for command in (switchover, drain, undrain, pause, resume, recover, reconfigure):
        app.command()(command)
