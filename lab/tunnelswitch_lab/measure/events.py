"""Everything that is said on the bus during a run, as JSON lines: a recording process, and a reader.

`python -m tunnelswitch_lab.measure.events --url nats://... --cluster NAME --out FILE [--key SEED] [--ca PEM]` runs
inside a namespace that reaches the bus. It understands nothing of what it records: what is not JSON is kept as text,
cut to a bound.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import msgspec
import nats
from nats.aio.msg import Msg

from tunnelswitch.bus.access import ANONYMOUS, Access
from tunnelswitch.errors import BusError

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_FLUSH_SECONDS = 0.25
_CONNECT_SECONDS = 5.0
_MAX_TEXT = 2000
_MAX_EVENTS = 2_000_000  # about an hour of a small deployment; then recording stops and says so


@dataclass(frozen=True, slots=True)
class BusEvent:
    """One recorded message: when the recorder had it, and what it said (`kind` is the last word of its type)."""

    received_at: float
    sent_at: float
    subject: str
    kind: str
    source: str
    data: dict[str, Any] = field(default_factory=dict)


class Recorder:
    """Writes messages as they come."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self.recorded = self.refused = 0

    async def take(self, message: Msg) -> None:
        """Record one message."""
        self.write(time.time(), message.subject, message.data)

    def write(self, received_at: float, subject: str, data: bytes) -> None:
        """Add one line; what is not a JSON object stands under `text`."""
        if self.recorded >= _MAX_EVENTS:
            self.refused += 1
            return
        self.recorded += 1
        head = json.dumps({"received_at": received_at, "subject": subject}, separators=(",", ":"))[:-1]
        try:
            _OBJECT.decode(data)  # looked over, and not read: it would take the processor from those who are measured
            if b"\n" in data or b"\r" in data:
                raise ValueError("more than one line")
            rest = f'"event":{data.decode()}'
        except (ValueError, RecursionError):
            rest = f'"text":{json.dumps(data[:_MAX_TEXT].decode(errors="replace"))}'
        self._out.write(f"{head},{rest}}}\n")


async def record(url: str, cluster: str, out: Path, access: Access = ANONYMOUS) -> None:
    """Record until SIGTERM or SIGINT. The file appears when the subscription is in force.

    Raises OSError or nats.errors.Error when the bus cannot be reached in five seconds.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def ignore(_: Exception) -> None:
        """Losing a node is part of the experiments."""

    try:
        async with asyncio.timeout(_CONNECT_SECONDS):  # the client itself would try for ever
            connection = await nats.connect(
                url,
                connect_timeout=2,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.1,
                ping_interval=1,
                max_outstanding_pings=2,
                error_cb=ignore,
                **access.options(),
            )
    except TimeoutError:
        raise TimeoutError(f"no answer in {_CONNECT_SECONDS:g} s") from None
    temporary = out.with_name(out.name + ".new")
    try:
        with temporary.open("w", encoding="utf-8", buffering=1 << 16) as file:
            recorder = Recorder(file)
            await connection.subscribe(f"tsw.v1.{cluster}.>", cb=recorder.take)
            await connection.flush(timeout=5)
            temporary.replace(out)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _FLUSH_SECONDS)
                file.flush()
        if recorder.refused:
            print(f"events: {recorder.refused} messages beyond {_MAX_EVENTS} not recorded", file=sys.stderr)
    finally:
        await connection.close()


def read_events(path: Path) -> Iterator[BusEvent]:
    """The CloudEvents of a recording, in the order of arrival; other lines and a cut last line are skipped."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            event = _parse(line)
            if event is not None:
                yield event


def _parse(line: str) -> BusEvent | None:
    try:
        entry = json.loads(line)
        event = entry["event"]
        received_at = float(entry["received_at"])
        kind = str(event["type"]).rpartition(".")[2]
        data = event.get("data")
        return BusEvent(
            received_at=received_at,
            sent_at=_seconds(event.get("time"), received_at),
            subject=str(entry["subject"]),
            kind=kind,
            source=str(event.get("source", "")),
            data=data if isinstance(data, dict) else {},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _seconds(text: object, otherwise: float) -> float:
    if not isinstance(text, str):
        return otherwise
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return otherwise


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="events", description="Record the bus of one cluster.")
    parser.add_argument("--url", required=True, help="a NATS node, for example nats://10.9.0.3:4222")
    parser.add_argument("--cluster", required=True, help="the cluster's name")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--key", metavar="FILE", help="an nkey seed that may hear the cluster, such as the viewer's")
    parser.add_argument("--ca", metavar="FILE", help="who may vouch for the node, if it wants TLS")
    given = parser.parse_args(arguments)
    try:
        asyncio.run(record(given.url, given.cluster, given.out, Access(seed=given.key, ca=given.ca)))
    except (OSError, nats.errors.Error, BusError) as error:
        print(f"events: cannot record from {given.url}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
