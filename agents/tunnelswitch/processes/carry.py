"""`tunnelswitch carry`: beside the QEMUs of a site, the carrier of their checkpoints over T1.

A process of its own, with a life of its own: agents come and go while a machine is protected, and this must not.
"""

from __future__ import annotations

import signal

from tunnelswitch.config import Deployment
from tunnelswitch.errors import ConfigError, DriverError
from tunnelswitch.replication.carrying import Carrier

RETRY_SECONDS = 1.0
ENDS = (signal.SIGTERM, signal.SIGINT)


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
        ends = (colo.sites[site].migration_address, colo.peer_of(site).migration_address)
        found.append(Carrier(name, *colo.carrier_sockets(name, site), *ends))
    if not found:
        remedy = "give the machine's table [services.NAME.colo] a carrier_directory, or do not run this here"
        raise ConfigError("services", f"none has checkpoints that {site} carries", remedy)
    return found


def run_carriers(deployment: Deployment, site: str) -> None:
    """Carry until SIGTERM or SIGINT, which every thread blocks. A machine whose sockets cannot be made is tried again,
    and harms no other.

    Raises:
        ConfigError: nothing is to be carried here.
    """
    found = carriers(deployment, site)
    waiting = list(found)
    told: set[Carrier] = set()
    while True:
        for carrier in tuple(waiting):
            try:
                carrier.start()
            except DriverError as error:
                if carrier not in told:
                    carrier.log.error("not_carried", problem=error.diagnostics())
                told.add(carrier)
            else:
                waiting.remove(carrier)
                carrier.log.info("carried")
        if (signal.sigtimedwait(ENDS, RETRY_SECONDS) if waiting else signal.sigwait(ENDS)) is not None:
            break
    for carrier in found:
        carrier.close()
