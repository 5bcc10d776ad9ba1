"""What must hold for the output of a service that is held back."""

from __future__ import annotations

from tunnelswitch.config import values
from tunnelswitch.config.model import Output, Service
from tunnelswitch.config.problems import Problems, shown

HOLDING_DRIVERS = ("colo",)
# What one packet filter takes; see adapters/frames.py.
REALTIME_RANGES_MAX = 32


def check_output(key: str, service: Service, problems: Problems) -> None:
    """Note what is wrong with `buffering` and the table `output` of a service."""
    output, here = service.output, f"{key}.output"
    if service.buffering == "none":
        if output is not None:
            problems.add(here, 'is given, and buffering is "none"', "remove it, or choose full or realtime")
        return
    if service.driver not in HOLDING_DRIVERS:
        problem = f"{shown(service.buffering)} is not for the driver {shown(service.driver)}"
        problems.add(f"{key}.buffering", problem, f'use the driver {" or ".join(HOLDING_DRIVERS)}, or "none"')
        return
    if output is None:
        problem = f"is missing, and buffering is {shown(service.buffering)}"
        problems.add(here, problem, f"add the table [{here}]")
        return
    for field in ("machine_device", "bridge_device"):
        device: str = getattr(output, field)
        if not values.is_device(device):
            remedy = "give a network device of at most 15 characters"
            problems.add(f"{here}.{field}", f"{shown(device)} is not a device's name", remedy)
    if output.machine_device == output.bridge_device:
        remedy = "name the tap of the machine, and one end of a veth pair whose other end is on the bridge"
        problems.add(f"{here}.bridge_device", f"{shown(output.bridge_device)} is also machine_device", remedy)
    _check_ports(f"{here}.realtime_udp_ports", service.buffering, output, problems)


def _check_ports(key: str, buffering: str, output: Output, problems: Problems) -> None:
    ports = output.realtime_udp_ports
    if buffering == "realtime" and not ports:
        problems.add(key, 'is empty, and buffering is "realtime"', "name the UDP ports that pass at once")
    if buffering == "full" and ports:
        problems.add(key, 'is given, and buffering is "full"', 'remove it, or choose buffering = "realtime"')
    if len(ports) > REALTIME_RANGES_MAX:
        problems.add(key, f"has {len(ports)} entries", f"name at most {REALTIME_RANGES_MAX} ports or ranges")
    for text in ports:
        if values.port_range(text) is None:
            problems.add(key, f"{shown(text)} is not a port or range", 'write "5004" or "10000-20000"')
