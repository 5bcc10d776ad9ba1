"""What must hold for services: one group each, GRE keys of their own, a driver, and bridges that we may use."""

from __future__ import annotations

from tunnelswitch.config import values
from tunnelswitch.config.model import Deployment, Exec, Service
from tunnelswitch.config.problems import Problems, join_key, shown, suggestion

DRIVERS = ("exec",)


def check_services(deployment: Deployment, problems: Problems) -> None:
    """Note everything that is wrong with the services and their place in groups."""
    if not deployment.services:
        problems.add("services", "is empty", "add a table [services.NAME]")
    for name, service in deployment.services.items():
        _check_service(join_key("services", name), name, service, problems)
    _check_keys(deployment, problems)
    _check_membership(deployment, problems)
    _check_bridges(deployment, problems)


def _check_service(key: str, name: str, service: Service, problems: Problems) -> None:
    if not values.is_service_name(name):
        problems.add(key, "is not a service's name", values.SERVICE_RULE)
    if not values.is_address(service.address):
        problem = f"{shown(service.address)} is not an IP address"
        problems.add(f"{key}.address", problem, "give the address that the clients talk to")
    if not values.is_device(service.bridge):
        remedy = "use at most 15 characters without blanks, / and :"
        problems.add(f"{key}.bridge", f"{shown(service.bridge)} is not a bridge's name", remedy)
    if service.driver not in DRIVERS:
        remedy = suggestion(service.driver, DRIVERS, "drivers")
        problems.add(f"{key}.driver", f"{shown(service.driver)} is not a driver", remedy)
    elif service.exec is None:
        problems.add(f"{key}.exec", 'is missing, and driver is "exec"', f"add the table [{key}.exec]")
    if service.exec is not None:
        _check_exec(f"{key}.exec", service.exec, problems)


def _check_exec(key: str, hooks: Exec, problems: Problems) -> None:
    for field in ("promote", "fence", "status", "health"):
        command: tuple[str, ...] = getattr(hooks, field)
        if not command:
            if field != "health":
                problems.add(f"{key}.{field}", "is empty", "give the command as a list: program, then arguments")
        elif not command[0].startswith("/"):
            problem = f"{shown(command[0])} is not an absolute path"
            problems.add(f"{key}.{field}", problem, "name the program by its whole path; no shell and no PATH is used")
        if any("\0" in part for part in command):
            problems.add(f"{key}.{field}", "holds a NUL character", "remove it")
    socket = hooks.notify_socket
    if socket and (not socket.startswith("/") or "\0" in socket):
        problems.add(f"{key}.notify_socket", f"{shown(socket)} is not an absolute path", "give the socket's whole path")


def _check_keys(deployment: Deployment, problems: Problems) -> None:
    """A GRE key tells tunnels between the same two addresses apart, so no two may share one."""
    first_use: dict[int, str] = {}
    for name, service in deployment.services.items():
        for field in ("t2_key", "t3_key"):
            gre_key: int = getattr(service, field)
            here = f"{join_key('services', name)}.{field}"
            first = first_use.setdefault(gre_key, here)
            if first != here:
                problems.add(here, f"{gre_key} is also {first}", "give every tunnel a GRE key of its own")


def _check_membership(deployment: Deployment, problems: Problems) -> None:
    owner: dict[str, str] = {}
    for group_name, group in deployment.groups.items():
        key = f"{join_key('groups', group_name)}.services"
        if not group.services:
            problems.add(key, "is empty", "name the services that move together")
        for name in group.services:
            if name not in deployment.services:
                remedy = suggestion(name, deployment.services, "services")
                problems.add(key, f"names no service: {shown(name)}", remedy)
            elif name in owner:
                problems.add(key, f"{shown(name)} is already in {owner[name]}", "let each service be in one group")
            else:
                owner[name] = key
    for name in deployment.services:
        if name not in owner:
            problems.add(join_key("services", name), "is in no group", "add it to services of one [groups.NAME]")


def _check_bridges(deployment: Deployment, problems: Problems) -> None:
    """The bridge of a service must be one that we may use, at every site where its tunnels end."""
    for group in deployment.groups.values():
        for name in group.services:
            service = deployment.services.get(name)
            if service is None:
                continue
            for site_name in dict.fromkeys((group.preferred, group.standby, *group.gateways)):
                site = deployment.sites.get(site_name)
                if site is not None and service.bridge not in site.bridges:
                    listed = ", ".join(site.bridges) or "none"
                    problems.add(
                        f"{join_key('services', name)}.bridge",
                        f"{shown(service.bridge)} is not ours to use at site {site_name} (its bridges: {listed})",
                        f"add it to {join_key('sites', site_name)}.bridges, or name one of those",
                    )
