"""What must hold for services: one group each, GRE keys of their own, a driver, and bridges that we may use."""

from __future__ import annotations

from collections.abc import Collection

from tunnelswitch.config import values
from tunnelswitch.config.checks_output import check_output
from tunnelswitch.config.model import Colo, Deployment, Exec, Group, Service, Xen
from tunnelswitch.config.problems import Problems, join_key, shown, suggestion

DRIVERS = ("exec", "colo", "xen")
# As many as a gateway watches, and as one site can speak of in a heartbeat; see bus/limits.py.
SERVICES_PER_GATEWAY_MAX = 1000
# sockaddr_un, with its last NUL (unix(7)).
SOCKET_PATH_BYTES_MAX = 107
# From a driver's word that its standby is lost to output that leaves without one; see core/housekeeping.py.
UNPROTECTING_SECONDS = 0.4


def check_services(deployment: Deployment, problems: Problems) -> None:
    """Note everything that is wrong with the services and their place in groups."""
    if not deployment.services:
        problems.add("services", "is empty", "add a table [services.NAME]")
    for name, service in deployment.services.items():
        _check_service(join_key("services", name), name, service, problems)
    _check_copies(deployment, problems)
    _check_keys(deployment, problems)
    _check_membership(deployment, problems)
    _check_bridges(deployment, problems)
    _check_gateways(deployment, problems)
    _check_waits(deployment, problems)


def _check_service(key: str, name: str, service: Service, problems: Problems) -> None:
    if not values.is_service_name(name):
        problems.add(key, "is not a service's name", values.SERVICE_RULE)
    if not values.is_ipv4(service.address):
        problem = f"{shown(service.address)} is not an IPv4 address, and a gateway watches no other packets"
        problems.add(f"{key}.address", problem, "give the address that the clients talk to")
    if not values.is_device(service.bridge):
        remedy = "use at most 15 characters without blanks, / and :"
        problems.add(f"{key}.bridge", f"{shown(service.bridge)} is not a bridge's name", remedy)
    if service.driver not in DRIVERS:
        remedy = suggestion(service.driver, DRIVERS, "drivers")
        problems.add(f"{key}.driver", f"{shown(service.driver)} is not a driver", remedy)
    elif getattr(service, service.driver) is None:
        problem = f'is missing, and driver is "{service.driver}"'
        problems.add(f"{key}.{service.driver}", problem, f"add the table [{key}.{service.driver}]")
    if service.exec is not None:
        _check_exec(f"{key}.exec", service.exec, problems)
    if service.colo is not None:
        _check_colo(f"{key}.colo", name, service.colo, problems)
        if service.colo.renew and service.buffering != "none":
            problem = (
                "is true, and output waits for checkpoints: until the record says that nobody stands by it would wait"
            )
            problems.add(f"{key}.colo.renew", problem, 'use policy.relief = "automatic", which is shorter')
    if service.xen is not None:
        _check_xen(f"{key}.xen", service.xen, problems)
    check_output(key, service, problems)


def _check_exec(key: str, hooks: Exec, problems: Problems) -> None:
    for field in ("promote", "fence", "status", "health", "checkpoint"):
        command: tuple[str, ...] = getattr(hooks, field)
        if not command:
            if field not in ("health", "checkpoint"):
                problems.add(f"{key}.{field}", "is empty", "give the command as a list: program, then arguments")
        elif not command[0].startswith("/"):
            problem = f"{shown(command[0])} is not an absolute path"
            problems.add(f"{key}.{field}", problem, "name the program by its whole path; no shell and no PATH is used")
        if any("\0" in part for part in command):
            problems.add(f"{key}.{field}", "holds a NUL character", "remove it")
    if hooks.notify_socket:
        _check_path(f"{key}.notify_socket", hooks.notify_socket, "socket", problems)


def _check_colo(key: str, service: str, colo: Colo, problems: Problems) -> None:
    _check_path(f"{key}.qmp_socket", colo.qmp_socket, "socket", problems)
    if not values.is_server_name(colo.mute_object):
        remedy = "give the id of the object that keeps a standby silent, of letters, digits and _.-"
        problems.add(f"{key}.mute_object", f"{shown(colo.mute_object)} is not an id", remedy)
    _check_addresses(key, {name: site.migration_address for name, site in colo.sites.items()}, problems)
    if colo.carrier_directory:
        _check_path(f"{key}.carrier_directory", colo.carrier_directory, "directory", problems)
    if colo.renew and not colo.memory_limit_mb:
        problems.add(f"{key}.memory_limit_mb", "is missing, and renew is asked for", "give what QEMU must not exceed")
    for name, site in colo.sites.items():
        if colo.carrier_directory and len(bytes(colo.carrier_sockets(service, name)[0])) > SOCKET_PATH_BYTES_MAX:
            problem = f"{shown(colo.carrier_directory)} is too long for a socket's path"
            problems.add(
                f"{key}.carrier_directory", problem, f"a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes"
            )
        here = f"{join_key(f'{key}.sites', name)}"
        if site.device and not values.is_device(site.device):
            remedy = "give a network device of at most 15 characters"
            problems.add(f"{here}.device", f"{shown(site.device)} is not a device's name", remedy)
        if site.rate_mbit and not site.device:
            problems.add(f"{here}.device", "is missing, and rate_mbit is given", "name the device that carries T1")
        endpoint = values.split_endpoint(site.migration_address)
        if colo.quickack and endpoint is not None and not values.is_address(endpoint[0]):
            problem = f"{shown(site.migration_address)} is a name, and quickack is asked for"
            problems.add(f"{here}.migration_address", problem, "write the address on T1")
        if colo.quickack and not site.device:
            problems.add(f"{here}.device", "is missing, and quickack is asked for", "name the device that carries T1")


def _check_xen(key: str, xen: Xen, problems: Problems) -> None:
    _check_path(f"{key}.keeper_socket", xen.keeper_socket, "socket", problems)
    if xen.guest and not values.is_server_name(xen.guest):
        remedy = "give the guest's name in xl list, of letters, digits and _.-"
        problems.add(f"{key}.guest", f"{shown(xen.guest)} is not a guest's name", remedy)
    longest = xen.checkpoint_interval_ms / 1000 + xen.stall_seconds
    if xen.silence_seconds <= longest:
        problem = f"{xen.silence_seconds:g} is no longer than a checkpoint may take"
        problems.add(f"{key}.silence_seconds", problem, f"give more than interval and stall together, {longest:g}")
    _check_addresses(key, {name: site.migration_address for name, site in xen.sites.items()}, problems)


def _check_path(key: str, path: str, what: str, problems: Problems) -> None:
    if not path.startswith("/") or "\0" in path:
        problems.add(key, f"{shown(path)} is not an absolute path", f"give the {what}'s whole path")


def _check_addresses(key: str, addresses: dict[str, str], problems: Problems) -> None:
    """Where each site takes checkpoints in."""
    taken: dict[str, str] = {}
    for name, address in addresses.items():
        here = f"{join_key(f'{key}.sites', name)}"
        if values.split_endpoint(address) is None:
            problem = f"{shown(address)} is not an address to listen on"
            problems.add(f"{here}.migration_address", problem, "write HOST:PORT or [IPV6]:PORT, an address on T1")
        first = taken.setdefault(address, here)
        if first != here:
            problem = f"{shown(address)} is also {first}.migration_address"
            problems.add(f"{here}.migration_address", problem, "give every site an address of its own")


def _check_copies(deployment: Deployment, problems: Problems) -> None:
    """A machine has a copy at both servers of its group, and nowhere else."""
    for group in deployment.groups.values():
        for name in group.services:
            service = deployment.services.get(name)
            if service is None:
                continue
            if service.colo is not None:
                _check_servers(f"{join_key('services', name)}.colo.sites", service.colo.sites, group, problems)
            if service.xen is not None:
                _check_servers(f"{join_key('services', name)}.xen.sites", service.xen.sites, group, problems)


def _check_servers(key: str, sites: Collection[str], group: Group, problems: Problems) -> None:
    servers = (group.preferred, group.standby)
    for site in servers:
        if site not in sites:
            problems.add(join_key(key, site), "is missing", f"add the table [{join_key(key, site)}]")
    for site in sites:
        if site not in servers:
            problem = "is no server of the service's group"
            problems.add(join_key(key, site), problem, f"remove it; the servers are {', '.join(servers)}")


def _check_keys(deployment: Deployment, problems: Problems) -> None:
    """A GRE key tells tunnels between the same two addresses apart, so no two may share one. Services of one group on
    one bridge may share the tunnels themselves, both of them."""
    group_of = {name: group_name for group_name, group in deployment.groups.items() for name in group.services}
    first_use: dict[int, tuple[str, tuple[object, ...]]] = {}
    for name, service in deployment.services.items():
        pair = (group_of.get(name), service.bridge, service.t2_key, service.t3_key)
        for field in ("t2_key", "t3_key"):
            gre_key: int = getattr(service, field)
            here = f"{join_key('services', name)}.{field}"
            first, tunnel = first_use.setdefault(gre_key, (here, (field, *pair)))
            if tunnel == (field, *pair):
                continue
            remedy = "give every tunnel a GRE key of its own"
            if tunnel[1:3] == pair[:2] and tunnel[0] == field:
                remedy += ", or let the two services share both keys"
            problems.add(here, f"{gre_key} is also {first}", remedy)


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


def _check_gateways(deployment: Deployment, problems: Problems) -> None:
    """A gateway watches the packets of every service that it carries, with one filter."""
    for name in deployment.sites:
        carried = sum(len(group.services) for group in deployment.groups.values() if name in group.gateways)
        if carried > SERVICES_PER_GATEWAY_MAX:
            problem = f"is a gateway of {carried} services; one can watch the packets of {SERVICES_PER_GATEWAY_MAX}"
            problems.add(join_key("sites", name), problem, "give some groups another gateway")


def _check_waits(deployment: Deployment, problems: Problems) -> None:
    """Output that is held back is an answer that clients do not have yet, and no sign that their service is cut off,
    even while a lost standby is given up."""
    unanswered = deployment.detection.unanswered_seconds
    for name, service in deployment.services.items():
        colo = service.colo
        if service.buffering == "none" or colo is None:
            continue
        longest = colo.checkpoint_interval_ms / 1000 + colo.stall_seconds + UNPROTECTING_SECONDS
        if longest > unanswered:
            problems.add(
                "detection.unanswered_seconds",
                f"{unanswered:g} is shorter than output of {name} may wait: {longest:g} s (checkpoint_interval_ms, "
                f"stall_seconds, and {UNPROTECTING_SECONDS:g} s until the record says that the standby is lost)",
                "raise it, or shorten the interval: clients that wait for a checkpoint are not cut off",
            )
