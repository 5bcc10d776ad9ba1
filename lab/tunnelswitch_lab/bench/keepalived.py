"""keepalived: VRRP version 3 (RFC 5798) between the two copies, the service's address on the master, gratuitous ARP.

This is the paper's "original" way, on one layer 2 that reaches over both tunnels. It has its fastest lawful settings:
adverts down to the 10 ms that RFC 5798 can express, real-time priority, no delay before the announcements. Of a dead
copy it learns in one of two ways: from a file that says so the moment the kernel knows, or from a health script, as
most installations do, once a second at best (keepalived.conf(5), vrrp_script).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tunnelswitch_lab import layout as names
from tunnelswitch_lab import netns
from tunnelswitch_lab.bench import flat
from tunnelswitch_lab.bench.pair import HEALTH_CHECK
from tunnelswitch_lab.layout import Site
from tunnelswitch_lab.procs import Proc
from tunnelswitch_lab.recording import Recording
from tunnelswitch_lab.testbed import Testbed

_PRIORITIES = {"primary": 150, "secondary": 100}
_MASTER_SECONDS = 15.0
# Ends when the process does, and says so in the file that keepalived watches.
_TELL = """
import os, pathlib, select, sys
select.select([os.pidfd_open(int(sys.argv[1]))], [], [])
pathlib.Path(sys.argv[2]).write_text("1")
"""


def tracked_file(path: str) -> tuple[str, str]:
    """Definition and use of a file whose content says whether the copy has died."""
    define = f"""track_file service {{
    file {path}
    weight 0
    init_file 0 overwrite
}}"""
    return define, "track_file {\n        service weight 0\n    }"


def health_script(command: Sequence[str]) -> tuple[str, str]:
    """Definition and use of a script that asks the copy every second, the shortest interval there is."""
    define = f"""vrrp_script service {{
    script "{shlex.join(command)}"
    interval 1
    timeout 1
    rise 1
    fall 1
    user root
}}"""
    return define, "track_script {\n        service\n    }"


def configuration(server: Site, interval_ms: float, tracking: tuple[str, str]) -> str:
    """keepalived.conf(5) of one server; `tracking` is how a dead copy is noticed."""
    define, use = tracking
    return f"""global_defs {{
    router_id {server.name}
    vrrp_version 3
    vrrp_garp_master_delay 0
    vrrp_garp_master_repeat 2
    vrrp_rt_priority 50
    vrrp_no_swap
    enable_script_security
}}
{define}
vrrp_instance service {{
    state BACKUP
    interface eth0
    virtual_router_id 77
    priority {_PRIORITIES[server.name]}
    advert_int {interval_ms / 1000:g}
    virtual_ipaddress {{
        {names.SERVICE_ADDRESS}/{flat.PREFIX_LENGTH} dev eth0
    }}
    {use}
}}
"""


@dataclass
class Keepalived:
    """VRRP with an advert every `interval_ms`; a backup takes over after three of them and its skew."""

    interval_ms: float
    name: str = "keepalived"
    faults: tuple[str, ...] = ("host-loss", "service-crash")
    programs: tuple[str, ...] = ("keepalived",)
    record: type[Recording] = Recording
    does_not: str = (
        "vote: a partition makes two masters; keep state; reach beyond one layer 2; fence the old master's packets; "
        "notice a copy that hangs"
    )

    async def start(self, bed: Testbed) -> None:
        copies = await flat.start(bed)
        for server in bed.layout.servers:
            self._spawn(bed, server, self._track(bed, server, copies[server.name]))
        primary = bed.layout.servers[0]
        await netns.wait_for(
            lambda: flat.has_service_address(primary), "the primary's keepalived as master", _MASTER_SECONDS
        )

    def _track(self, bed: Testbed, server: Site, copy: Proc) -> tuple[str, str]:
        file = str(bed.layout.service_state_directory(server.name) / "crashed")
        watcher = [sys.executable, "-c", _TELL, str(copy.pid), file]
        bed.spawn(server.service_namespace, watcher, name=f"watcher-{server.name}")
        return tracked_file(file)

    def _spawn(self, bed: Testbed, server: Site, tracking: tuple[str, str]) -> None:
        place = bed.layout.service_state_directory(server.name)
        config = place / "keepalived.conf"
        config.write_text(configuration(server, self.interval_ms, tracking), encoding="utf-8")
        pids = ["-p", str(place / "keepalived.pid"), "-r", str(place / "vrrp.pid")]
        command = ["keepalived", "--vrrp", "--dont-fork", "--log-console", "-f", str(config), *pids]
        bed.spawn(server.service_namespace, command, name=f"keepalived-{server.name}")

    async def wait_ready(self, recording: Recording) -> None:
        """The call is answered, so there is a master; its backup hears it within one advert."""

    async def stop(self, bed: Testbed) -> None:
        """Give the service's devices back the address and MAC that every lab has."""
        # A keepalived that is killed later, parent first, takes the address away on its way out.
        await bed.stop("keepalived-", "watcher-")
        await flat.restore(bed)


@dataclass
class KeepalivedScript(Keepalived):
    """The same with a health script that asks the copy for an answer every second."""

    name: str = "keepalived-script"
    does_not: str = (
        "vote: a partition makes two masters; keep state; reach beyond one layer 2; fence the old master's packets; "
        "notice a dead copy in less than its second"
    )

    def _track(self, bed: Testbed, server: Site, copy: Proc) -> tuple[str, str]:
        return health_script(HEALTH_CHECK)
