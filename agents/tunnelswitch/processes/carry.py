"""`tunnelswitch carry`: beside the QEMUs of a site, the carrier of their checkpoints over T1.

A process of its own, with a life of its own: agents come and go while a machine is protected, and this must not.
"""

from __future__ import annotations

import threading
from typing import NoReturn

import structlog

from tunnelswitch.config import Deployment
from tunnelswitch.errors import ConfigError
from tunnelswitch.replication.carrying import Carrier


def carriers(deployment: Deployment, site: str) -> list[Carrier]:
    """One for each machine of the site whose checkpoints are carried.

    Raises:
        ConfigError: there is none.
    """
    found = []
    for name, service in deployment.services.items():
        colo = service.colo
        if colo is None or not colo.carrier_directory or site not in colo.sites:
            continue
        there = next(other for at, other in colo.sites.items() if at != site)
        sockets = colo.carrier_sockets(name, site)
        found.append(Carrier(name, *sockets, colo.sites[site].migration_address, there.migration_address))
    if not found:
        remedy = "give the machine's table [services.NAME.colo] a carrier_directory, or do not run this here"
        raise ConfigError("services", f"none has checkpoints that {site} carries", remedy)
    return found


def run_carriers(deployment: Deployment, site: str) -> NoReturn:
    """Carry until a signal ends the process.

    Raises:
        ConfigError: nothing is to be carried here.
        DriverError: a socket cannot be made.
    """
    started = carriers(deployment, site)
    try:
        for carrier in started:
            carrier.start()
        structlog.get_logger(__name__).info("started", machines=len(started))
        while True:
            threading.Event().wait()
    finally:
        for carrier in started:
            carrier.close()
