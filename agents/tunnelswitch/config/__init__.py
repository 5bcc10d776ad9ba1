"""The deployment file: one TOML file for every site, read once at start, checked as a whole, immutable afterwards.

`load` and `parse` are the only ways in. Nothing here reads the environment, the network or another file.
"""

from tunnelswitch.config.model import (
    Cluster,
    ClusterTls,
    Colo,
    ColoSite,
    Deployment,
    Detection,
    Exec,
    Group,
    Output,
    Policy,
    Runtime,
    Service,
    Site,
    SiteKind,
    Tls,
    Xen,
    XenSite,
)
from tunnelswitch.config.problems import DeploymentError
from tunnelswitch.config.reading import load, parse

__all__ = [
    "Cluster",
    "ClusterTls",
    "Colo",
    "ColoSite",
    "Deployment",
    "DeploymentError",
    "Detection",
    "Exec",
    "Group",
    "Output",
    "Policy",
    "Runtime",
    "Service",
    "Site",
    "SiteKind",
    "Tls",
    "Xen",
    "XenSite",
    "load",
    "parse",
]
