"""Which driver stands behind a service: the only place that knows them all."""

from __future__ import annotations

from collections.abc import Callable

from tunnelswitch.config import Service
from tunnelswitch.errors import ConfigError
from tunnelswitch.ports import Emit, ServiceDriver
from tunnelswitch.replication.colo import ColoDriver
from tunnelswitch.replication.exec import ExecDriver
from tunnelswitch.replication.xen import XenDriver


def make_driver(name: str, service: Service, site: str, emit: Emit, count: Callable[[str], None]) -> ServiceDriver:
    """The driver of service `name` at `site`.

    Args:
        emit: takes ServiceSeen, RunExited and CheckpointSeen.
        count: called with a short kind for everything bad that was ignored.

    Raises:
        ConfigError: there is no such driver.
    """
    if service.driver == "exec" and service.exec is not None:
        return ExecDriver(name, service.exec, site, emit, count)
    if service.driver == "colo" and service.colo is not None:
        output = None if service.buffering == "none" else service.output
        return ColoDriver(name, service.colo, site, emit, count, output)
    if service.driver == "xen" and service.xen is not None:
        return XenDriver(name, service.xen, site, emit, count)
    raise ConfigError(
        f"services.{name}.driver", f"there is no driver {service.driver!r}", 'use "exec", "colo" or "xen"'
    )
