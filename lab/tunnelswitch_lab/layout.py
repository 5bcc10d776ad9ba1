"""Names and addresses of a lab: which namespace, device, socket and URL every part has.

Pure data. Everything that the lab makes is derived from the lab's name here, so that two labs never meet and so that
`down` can find what a killed lab left behind. It creates nothing and asks the machine nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

RUN_ROOT = Path("/run/tunnelswitch-lab")
NAMESPACE_PREFIX = "tsw"

SERVERS = ("primary", "secondary")
GATEWAY = "gateway"
SITES = (*SERVERS, GATEWAY)

WAN_BRIDGE = "br-wan"
UPLINK = "uplink"  # the site's end of its veth to the WAN
CLIENT_PORT = "client0"  # the gateway's end of the client's veth
UNDERLAY_PREFIX_LENGTH = 24
UNDERLAY_MTU = 1500
INNER_MTU = 1400  # fits in GRE with a key on the underlay, with room to spare

T1_KEY, T2_KEY, T3_KEY = 1, 2, 3
SERVICE_ADDRESS, SERVICE_MAC = "192.168.77.10", "02:00:4d:00:00:0a"
CLIENT_ADDRESS, CLIENT_MAC = "192.168.77.1", "02:00:4d:00:00:01"
RTP_PORT, PROBE_PORT, REPLICATION_PORT, MIGRATION_PORT = 5004, 5006, 7000, 7001

# A virtual machine's tap, and what lies between it and br-svc where output is held back.
TAP, HOLD, HOLD_PORT = "vm0", "vm0-hold", "vm0-port"

NATS_PORT, NATS_ROUTE_PORT, NATS_MONITOR_PORT = 4222, 6222, 8222
AGENT_METRICS_PORT, SWITCHER_METRICS_PORT = 9101, 9102

_NAME = re.compile(r"[a-z][a-z0-9]{0,19}")


@dataclass(frozen=True)
class Site:
    """One site of a lab: primary, secondary or gateway."""

    lab: str
    name: str

    @property
    def number(self) -> int:
        """1 for the primary, 2 for the secondary, 3 for the gateway: the last octet of its addresses."""
        return SITES.index(self.name) + 1

    @property
    def is_server(self) -> bool:
        """Whether a copy of the service lives here."""
        return self.name in SERVERS

    @property
    def namespace(self) -> str:
        """Network namespace of the site's switch, NATS node and agents."""
        return f"{NAMESPACE_PREFIX}-{self.lab}-{self.name}"

    @property
    def service_namespace(self) -> str:
        """Network namespace of the service's copy; only servers have one."""
        return f"{NAMESPACE_PREFIX}-{self.lab}-svc-{self.name}"

    @property
    def directory(self) -> Path:
        """Run directory: sockets, databases, configurations and logs of this site."""
        return RUN_ROOT / self.lab / self.name

    @property
    def underlay_address(self) -> str:
        """Address on the WAN: endpoint of GRE, BFD and NATS."""
        return f"10.9.0.{self.number}"

    @property
    def underlay_mac(self) -> str:
        """Fixed, so that a restarted switch is not met with a stale neighbour entry."""
        return f"02:00:0a:09:00:{self.number:02x}"

    @property
    def replication_address(self) -> str:
        """Address of this server's copy of the service on T1."""
        return f"10.8.0.{self.number}"

    @property
    def migration_address(self) -> str:
        """Address of this server's host on T1, for a virtual machine's checkpoints."""
        return f"10.8.0.{self.number + 10}"

    @property
    def wan_port(self) -> str:
        """The WAN's end of this site's veth."""
        return self.name

    @property
    def database_socket(self) -> Path:
        """Unix socket of this site's ovsdb-server."""
        return self.directory / "db.sock"

    @property
    def switch_control(self) -> Path:
        """Control socket of this site's ovs-vswitchd (`ovs-appctl -t`)."""
        return self.directory / "vswitchd.ctl"

    @property
    def ovsdb(self) -> str:
        """OVSDB remote as Open vSwitch writes it."""
        return f"unix:{self.database_socket}"

    @property
    def nats_url(self) -> str:
        """Client URL of this site's NATS node, which lets nobody in without a key."""
        return f"nats://{self.underlay_address}:{NATS_PORT}"

    @property
    def agent_metrics(self) -> str:
        """HOST:PORT of the agent's /metrics and /healthz."""
        return f"{self.underlay_address}:{AGENT_METRICS_PORT}"

    @property
    def switcher_metrics(self) -> str:
        """HOST:PORT of the switcher's /metrics and /healthz; only gateways run one."""
        return f"{self.underlay_address}:{SWITCHER_METRICS_PORT}"


@dataclass(frozen=True)
class Layout:
    """Everything that has a name in one lab. Raises ValueError for an unusable lab name."""

    name: str

    def __post_init__(self) -> None:
        # No hyphen: the prefix tsw-NAME- then belongs to exactly one lab. No underscore: it names the cluster too.
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"lab name {self.name!r} is not usable: a letter first, then up to 19 of a-z and 0-9")

    @property
    def prefix(self) -> str:
        """What the names of all this lab's namespaces begin with."""
        return f"{NAMESPACE_PREFIX}-{self.name}-"

    @property
    def directory(self) -> Path:
        """Run directory of the whole lab."""
        return RUN_ROOT / self.name

    @property
    def sites(self) -> tuple[Site, ...]:
        """Primary, secondary, gateway, in this order."""
        return tuple(Site(self.name, name) for name in SITES)

    @property
    def servers(self) -> tuple[Site, ...]:
        """The sites with a copy of the service: primary, secondary."""
        return tuple(site for site in self.sites if site.is_server)

    @property
    def gateway(self) -> Site:
        """The site through which the clients come."""
        return self.site(GATEWAY)

    @property
    def wan_namespace(self) -> str:
        """Namespace of the bridge that stands for the WAN."""
        return f"{self.prefix}wan"

    @property
    def client_namespace(self) -> str:
        """Namespace of the client behind the gateway."""
        return f"{self.prefix}client"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Every namespace of the lab."""
        sites = [site.namespace for site in self.sites]
        services = [site.service_namespace for site in self.servers]
        return (self.wan_namespace, *sites, *services, self.client_namespace)

    @property
    def deployment_file(self) -> Path:
        """The deployment's TOML file, which every agent reads."""
        return self.directory / "deployment.toml"

    @property
    def keys(self) -> Path:
        """What `tunnelswitch pki init` made for this lab, and the lab's own keys beside it."""
        return self.directory / "pki"

    @property
    def service_directory(self) -> Path:
        """Parent of the service's state directories, one per server site."""
        return self.directory / "service"

    def service_state_directory(self, site: str) -> Path:
        """State directory of the service's copy on `site`; it holds service.pid."""
        return self.service_directory / site

    def notify_socket(self, site: str) -> Path:
        """Datagram socket on which the agent of `site` hears of checkpoints; `site` may be the text {site}."""
        return self.directory / f"notify-{site}.sock"

    def qmp_socket(self, site: str) -> Path:
        """Monitor of the virtual machine's copy on `site`; `site` may be the text {site}."""
        return self.directory / f"qmp-{site}.sock"

    def keeper_socket(self, site: str) -> Path:
        """Where the agent of `site` reaches the keeper of the Xen guest; `site` may be the text {site}."""
        return self.directory / f"keeper-{site}.sock"

    def console(self, site: str) -> Path:
        """What the virtual machine's copy on `site` prints on its serial line."""
        return self.directory / f"console-{site}.log"

    def site(self, name: str) -> Site:
        """The site called `name`. Raises ValueError for an unknown one."""
        if name not in SITES:
            raise ValueError(f"no site {name!r}: the sites are {', '.join(SITES)}")
        return Site(self.name, name)

    def namespace(self, short: str) -> str:
        """Full namespace name of `wan`, `client`, a site, or `svc-SITE`. Raises ValueError for an unknown one."""
        full = short if short.startswith(self.prefix) else f"{self.prefix}{short}"
        if full not in self.namespaces:
            known = ", ".join(name.removeprefix(self.prefix) for name in self.namespaces)
            raise ValueError(f"no namespace {short!r} in lab {self.name}: there are {known}")
        return full
