"""What `xl remus` and `xl migrate-receive` say on standard error, a line each, and what their exit statuses mean. Pure.

Xen's messages are no interface; these are the ones of Xen 4.17 (tools/xl/xl_migrate.c, tools/libs/guest/xg_sr_*.c). A
line that is not known is no mistake: it is passed on as xl's word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

BANNER = b"xl migration receiver ready, send binary domain data.\n"


class Said(Enum):
    """What a line is about."""

    # the primary
    SUSPENDED = auto()
    SAVED = auto()
    RESUMED = auto()
    DESTROYED = auto()
    SUSPEND_FAILED = auto()
    NO_CONFIG = auto()
    BAD_BANNER = auto()
    NO_DOMAIN = auto()
    # the secondary
    READY = auto()
    BUFFERED = auto()
    COMMITTED = auto()
    STREAM_ENDED = auto()
    RESTORED = auto()
    FAILOVER = auto()
    CREATE_FAILED = auto()
    RENAME_FAILED = auto()
    UNPAUSE_FAILED = auto()
    # both
    ERROR = auto()
    NOISE = auto()
    UNKNOWN = auto()


_LINES = tuple(
    (re.compile(pattern), said)
    for pattern, said in (
        (r"^xc: progress: Domain now suspended\b", Said.SUSPENDED),
        (r"^xc: progress: Checkpointed save: \d+/\d+\s+100%", Said.SAVED),
        (r"^Remus: Backup failed\? resuming domain at primary", Said.RESUMED),
        (r"^Remus: Primary domain has been destroyed", Said.DESTROYED),
        (r"^Failed to suspend domain at primary", Said.SUSPEND_FAILED),
        (r"^No config file stored for running domain", Said.NO_CONFIG),
        (r"contained unexpected data instead of banner", Said.BAD_BANNER),
        (r"is an invalid domain identifier", Said.NO_DOMAIN),
        (r"^migration target: Ready to receive domain", Said.READY),
        (r"^xc: info: All records buffered", Said.BUFFERED),
        (r"^xc: info: All records processed", Said.COMMITTED),
        (r"^xc: error: Failed to read\b", Said.STREAM_ENDED),
        (r"^xc: info: Restore successful|^Restore successful", Said.RESTORED),
        (r"^migration target: Remus Failover for domain (\d+)", Said.FAILOVER),
        (r"^migration target: Domain creation failed", Said.CREATE_FAILED),
        (r"^migration target \(Remus\): Failed to rename domain", Said.RENAME_FAILED),
        (r"^migration target \(Remus\): Failed to unpause domain", Said.UNPAUSE_FAILED),
        (r"\berror:|\bfailed\b|\bFailed\b|\btruncated\b", Said.ERROR),
        (r"^xc: (?:progress|info|detail|debug):|^libxl: (?:info|verbose|debug):|^xencall:", Said.NOISE),
        (r"^Loading new save file|^ Savefile contains|^Parsing config from|^$", Said.NOISE),
    )
)

_REMEDIES = {
    Said.SUSPEND_FAILED: "the guest does not answer a suspend request; it needs Xen's drivers and must not be paused",
    Said.NO_CONFIG: "start the guest with xl create, which keeps its configuration",
    Said.BAD_BANNER: "the peer's xl is another version; both hosts need the same Xen",
    Said.NO_DOMAIN: "the guest has ended meanwhile",
    Said.UNPAUSE_FAILED: "look at it with xl list, and at /var/log/xen",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what it is about, its text, and the domain that it names (-1: none)."""

    said: Said
    text: str
    domid: int = -1


def read(text: str) -> Line:
    """What a line of standard error means."""
    for pattern, said in _LINES:
        found = pattern.search(text)
        if found:
            domid = int(found[1]) if said is Said.FAILOVER else -1
            return Line(said, text, domid)
    return Line(Said.UNKNOWN, text)


class Transcript:
    """What one xl has said so far, as far as its end needs it."""

    def __init__(self) -> None:
        self.said: set[Said] = set()
        self.domid = -1
        self._worst = Line(Said.NOISE, "")

    def take(self, text: str) -> Line:
        """Note a line; returns what it means."""
        line = read(text)
        self.said.add(line.said)
        if line.said is Said.FAILOVER:
            self.domid = line.domid
        if line.said in _REMEDIES or (line.said in (Said.ERROR, Said.CREATE_FAILED) and self._worst.said is Said.NOISE):
            self._worst = line
        return line

    @property
    def complaint(self) -> str:
        """The line that says best what went wrong, with the remedy; empty if none does."""
        remedy = _REMEDIES.get(self._worst.said)
        return f"{self._worst.text}; {remedy}" if remedy else self._worst.text


class End(Enum):
    """How an xl has ended."""

    DESTROYED = "the guest was destroyed here"
    GOES_ON = "the guest goes on here without a standby"
    NOT_SUSPENDED = "the guest could not be suspended and goes on here"
    NOT_BEGUN = "checkpoints did not begin"
    TOOK_OVER = "the copy runs here"
    NO_COPY = "the stream ended before the first checkpoint: there is no copy"
    NOT_RESUMED = "the copy was not resumed"
    KILLED = "xl was killed by a signal; the guest may stand still: look with xl list"
    UNKNOWN = "xl ended in a way that is not known"


def remus_end(status: int, transcript: Transcript) -> End:
    """What the end of `xl remus` means. `status` is negative for a signal."""
    said = transcript.said
    if status < 0:
        return End.KILLED
    if status == 0:
        return End.DESTROYED if Said.DESTROYED in said else End.UNKNOWN
    if Said.RESUMED in said:
        return End.GOES_ON
    if Said.SUSPEND_FAILED in said:
        return End.NOT_SUSPENDED
    return End.NOT_BEGUN if Said.SUSPENDED not in said else End.UNKNOWN


def receive_end(status: int, transcript: Transcript) -> End:
    """What the end of `xl migrate-receive` means. `status` is negative for a signal."""
    said = transcript.said
    if status < 0:
        return End.KILLED
    if status == 0:
        return End.TOOK_OVER if Said.FAILOVER in said else End.UNKNOWN
    if Said.FAILOVER in said:
        return End.NOT_RESUMED
    return End.NO_COPY
