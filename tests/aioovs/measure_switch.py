"""Measures a switch between two GRE ports: 200 times add one, write a key, delete the other, until applied.

Run as `python tests/aioovs/measure_switch.py`; needs root and Open vSwitch. It is no test.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from real_ovs import Ovs

from aioovs import Database, Guard, SetKeys

TABLES = {
    "Open_vSwitch": ["bridges", "external_ids"],
    "Bridge": ["name", "ports", "datapath_type"],
    "Port": ["name", "interfaces"],
    "Interface": ["name", "type", "options", "ofport", "bfd", "bfd_status"],
}
SWITCHES = 200


async def measure(remote: str) -> tuple[list[float], list[float]]:
    """Milliseconds from submitted to committed, and to applied."""
    committed, applied = [], []
    async with Database(remote, tables=TABLES) as db:
        row = db.rows("Open_vSwitch")[0].uuid
        here, there = "t2", "t3"
        await db.transact(
            db.api.add_br("br-svc", datapath_type="netdev"),
            db.api.add_port("br-svc", here, type="gre", options={"remote_ip": "192.0.2.2", "key": "2"}),
            SetKeys(db.api, "Open_vSwitch", row, "external_ids", {"epoch": "0"}),
            wait_applied=True,
            deadline_seconds=10,
        )
        for epoch in range(SWITCHES):
            key = {"remote_ip": "192.0.2.3", "key": there[1:]}
            outcome = await db.transact(
                db.api.add_port("br-svc", there, type="gre", options=key),
                SetKeys(db.api, "Open_vSwitch", row, "external_ids", {"epoch": str(epoch + 1)}),
                db.api.del_port(here, "br-svc"),
                guard=Guard("Open_vSwitch", row, "epoch", str(epoch)),
                deadline_seconds=5,
                wait_applied=True,
            )
            assert outcome.applied_at is not None
            committed.append((outcome.committed_at - outcome.submitted_at) * 1e3)
            applied.append((outcome.applied_at - outcome.submitted_at) * 1e3)
            here, there = there, here
            await asyncio.sleep(0.02)
    return committed, applied


def main() -> None:
    """Prints median, 99th percentile and worst."""
    ovs = Ovs(Path(tempfile.mkdtemp(prefix="aioovs-")))
    try:
        ovs.start()
        ovs.start_switch()
        for name, figures in zip(("committed", "applied"), asyncio.run(measure(ovs.remote)), strict=True):
            p99 = statistics.quantiles(figures, n=100)[98]
            sys.stdout.write(f"{name}: median {statistics.median(figures):.2f} ms, p99 {p99:.2f} ms, ")
            sys.stdout.write(f"worst {max(figures):.2f} ms of {len(figures)}\n")
    finally:
        ovs.stop()
        shutil.rmtree(ovs.directory)


if __name__ == "__main__":
    main()
