"""Drivers of protected services: whatever can be promoted and fenced stands behind `ports.ServiceDriver`.

A driver is never the parent of what it protects: an agent that dies leaves the service serving.
"""

from __future__ import annotations

from collections.abc import Callable

from tunnelswitch.config import Service
from tunnelswitch.errors import ConfigError
from tunnelswitch.ports import Emit, ServiceDriver
from tunnelswitch.replication.exec import ExecDriver

__all__ = ["ExecDriver", "make_driver"]


def make_driver(
    name: str, service: Service, site: str, emit: Emit, count: Callable[[str], None] = lambda kind: None
) -> ServiceDriver:
    """The driver that the deployment file asks for.

    Raises:
        ConfigError: there is none of that name (checking the deployment has said so before).
    """
    if service.driver == "exec" and service.exec is not None:
        return ExecDriver(name, service.exec, site, emit, count)
    raise ConfigError(f"services.{name}.driver", f"no driver {service.driver!r}", 'use "exec"')
