"""Print who answered a probe, and its largest gap, from a trace of the lab. Runs in the client's container."""

import itertools
import json
import sys
from pathlib import Path

from tunnelswitch_lab.workload.trace import Received, read_trace

received = [record for record in read_trace(Path(sys.argv[1])) if isinstance(record, Received)]
pairs = itertools.pairwise(received)
gap_ns = max((later.received_ns - earlier.received_ns for earlier, later in pairs), default=0)
report = {
    "answers": len(received),
    "sites": [site for site, _ in itertools.groupby(record.site for record in received)],
    "gap_seconds": gap_ns / 1e9,
}
print(json.dumps(report))
