"""A stand-in for xl: its words, exit statuses and what it does with a stream, as those of Xen 4.17.

Domains are entries of a file in one host's directory, `FAKE_XEN`. Other files in it make it behave as a Xen in trouble.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from xen_domains import changed

HOST = Path(os.environ["FAKE_XEN"])
BANNER = b"xl migration receiver ready, send binary domain data.\n"
PAGE = b"\x5a" * 4096
PAGES = 16


def troubled(name: str) -> bool:
    return (HOST / name).exists()


def say(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def out(line: str) -> None:
    sys.stdout.write(line + "\n")


def find(name: str) -> str | None:
    with changed(HOST) as table:
        return next((domid for domid, one in table["domains"].items() if name in (domid, one["name"])), None)


def wanted(name: str) -> str:
    domid = find(name)
    if domid is None:
        say(f"{name} is an invalid domain identifier (rc=-6)")
        raise SystemExit(1)
    return domid


def create(name: str, state: str, disks: list[Any]) -> str:
    with changed(HOST) as table:
        table["last"] += 1
        table["domains"][str(table["last"])] = {"name": name, "state": state, "disks": disks}
        return str(table["last"])


def list_(arguments: list[str]) -> None:
    if troubled("list-fails"):
        say("libxl: error: libxl.c:520:libxl_list_domain: getting domain info list: Cannot allocate memory")
        raise SystemExit(1)
    with changed(HOST) as table:
        if arguments[:1] == ["-l"]:
            one = table["domains"][arguments[1]]
            out(json.dumps([{"domid": int(arguments[1]), "config": {"disks": one["disks"]}}]))
            return
        out("Name                                        ID   Mem VCPUs\tState\tTime(s)")
        out("Domain-0                                     0   640     1     r-----      20.5")
        for domid, one in table["domains"].items():
            out(f"{one['name']:40} {domid:>5} {96:>5} {1:>5}     {one['state']}      {1.0:.1f}")


def destroy(name: str) -> None:
    if troubled("destroy-fails"):
        say("libxl: error: libxl_domain.c:1182:libxl__destroy_domid: Domain 1:Unable to destroy")
        raise SystemExit(1)
    domid = wanted(name)
    with changed(HOST) as table:
        table["domains"][domid] |= {"name": "(null)", "state": "--p---"}
    time.sleep(0.2)
    with changed(HOST) as table:
        table["domains"].pop(domid, None)


def rename(name: str, new: str) -> None:
    domid = wanted(name)
    with changed(HOST) as table:
        table["domains"][domid]["name"] = new


def remus(arguments: list[str]) -> None:
    """A frame is a head line (`checkpoint SIZE`) and that many bytes."""
    interval = float(arguments[arguments.index("-i") + 1]) / 1000
    assert "-F" in arguments
    assert "-n" in arguments
    domid, rune = wanted(arguments[-2]), arguments[-1]
    with changed(HOST) as table:
        name = table["domains"][domid]["name"]
    transport = subprocess.Popen(["sh", "-c", rune], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert transport.stdin is not None
    assert transport.stdout is not None
    greeting = b""
    while len(greeting) < len(BANNER) and (more := transport.stdout.read(len(BANNER) - len(greeting))):
        greeting += more
    if greeting != BANNER:
        say("libxl: error: libxl_utils.c:430:libxl_read_exactly: file/stream truncated reading banner")
        raise SystemExit(1)
    try:
        transport.stdin.write(f"domain {name}\n".encode())
        while True:
            if find(domid) is None:
                say("Remus: Primary domain has been destroyed.")
                raise SystemExit(0)
            if troubled("no-suspend"):
                say("libxl: error: libxl_dom_suspend.c:404:suspend_common_wait_guest_timeout: guest did not suspend")
                say("Failed to suspend domain at primary.")
                raise SystemExit(1)
            say("xc: progress: Domain now suspended: 0/0    0%")
            send(transport.stdin, f"checkpoint {PAGES * len(PAGE)}\n".encode() + PAGE * PAGES)
            say(f"xc: progress: Checkpointed save: {PAGES}/{PAGES}  100%")
            time.sleep(interval)
    except OSError:
        say("xc: error: Failed to write page data to stream (32 = Broken pipe): Internal error")
        if find(domid) is None:
            say("Remus: Primary domain has been destroyed.")
            raise SystemExit(0) from None
        say("Remus: Backup failed? resuming domain at primary.")
        raise SystemExit(1) from None


def hang() -> None:
    """For as long as the keeper lives."""
    keeper = os.getppid()
    while os.getppid() == keeper:
        time.sleep(0.1)


def watch() -> None:
    """xenstore-watch: a line for every change, while its keeper lives."""
    last, keeper = 0, os.getppid()
    while os.getppid() == keeper:
        now = (HOST / "domains.json").stat().st_mtime_ns
        if now != last:
            last = now
            os.write(1, b"@releaseDomain\n")
        time.sleep(0.05)


def send(stream: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]


def migrate_receive(arguments: list[str]) -> None:
    assert arguments == ["-r"]
    say("migration target: Ready to receive domain.")
    if troubled("no-greeting"):
        hang()
    os.write(1, b"xl migration receiver of another kind\n".ljust(len(BANNER)) if troubled("other-xl") else BANNER)
    stdin = sys.stdin.buffer
    head = stdin.readline().split()
    if not head:
        end_without_copy("")
    name = head[1].decode()
    domid = create(f"{name}--incoming", "--p---", [])
    say("Loading new save file <incoming migration stream> (new xl fmt info 0x3/0x0/1083)")
    checkpoints = 0
    while (line := stdin.readline()) and line.endswith(b"\n"):
        size = int(line.split()[1])
        if len(stdin.read(size)) != size:
            break
        if troubled("stuck"):
            hang()
        checkpoints += 1
        if checkpoints > 1:  # the first one is not buffered
            say("xc: info: All records buffered")
            say("xc: info: All records processed")
    say("xc: error: Failed to read Record Header from stream (0 = Success): Internal error")
    if not checkpoints:
        end_without_copy(domid)
    say("xc: info: Restore successful")
    say(f"migration target: Remus Failover for domain {domid}")
    if find(domid) is None or troubled("no-unpause"):
        say(f"migration target (Remus): Failed to unpause domain {name} (id: {domid}):-3")
        raise SystemExit(1)
    if troubled("no-rename"):
        say(f"migration target (Remus): Failed to rename domain from {name}--incoming to {name}:-3")
    else:
        rename(domid, name)
    with changed(HOST) as table:
        table["domains"][domid]["state"] = "-b----"


def end_without_copy(domid: str) -> None:
    if domid:
        with changed(HOST) as table:
            table["domains"].pop(domid, None)
    say("migration target: Domain creation failed (code -3).")
    raise SystemExit(1)


def main() -> None:
    (HOST / "calls").open("a").write(" ".join(sys.argv[1:]) + "\n")
    verb, arguments = sys.argv[1], sys.argv[2:]
    match verb:
        case "list":
            list_(arguments)
        case "destroy":
            destroy(arguments[0])
        case "rename":
            rename(*arguments)
        case "remus":
            remus(arguments)
        case "migrate-receive":
            migrate_receive(arguments)
        case "@introduceDomain":
            watch()
        case _:
            raise SystemExit(f"no {verb}")


main()
