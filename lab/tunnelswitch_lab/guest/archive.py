"""A cpio archive in the form that the kernel unpacks as its first file system (`newc`, cpio(5)). Pure.

It knows directories and plain files; the kernel's own device nodes come from devtmpfs.
"""

from __future__ import annotations

from collections.abc import Mapping

_DIRECTORY, _FILE = 0o040755, 0o100755
_TRAILER = "TRAILER!!!"
_BLOCK = 512


def build(files: Mapping[str, bytes]) -> bytes:
    """An archive of these files by path (relative, without `..`), all executable, with the directories they need."""
    parents = {path.rsplit("/", depth)[0] for path in files for depth in range(1, path.count("/") + 1)}
    entries = [(path, _DIRECTORY, b"") for path in sorted({*parents, "dev", "proc", "sys"})]
    entries += [(path, _FILE, data) for path, data in sorted(files.items())]
    parts = [_entry(number, *entry) for number, entry in enumerate(entries, start=1)]
    archive = b"".join([*parts, _entry(0, _TRAILER, 0, b"")])
    return archive + bytes(-len(archive) % _BLOCK)


def _entry(number: int, path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if mode == _DIRECTORY else 1
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
