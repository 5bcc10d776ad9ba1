"""A machine that checks its own memory: a boot sector which never trusts what it wrote.

96 pages hold the number of the round: odd pages in their first 32 bytes, with zeros behind, the others all over. A round
goes through them, finds in each what the round before has written, or says X on the debug console and halts, and writes
its own number there. After every round it says a dot. A page that is not of the same moment as the others, or as the
processor, is found within one round.
"""

from __future__ import annotations

from pathlib import Path

SECTOR_BYTES = 512
FLOPPY_BYTES = 1_474_560
GOOD, BAD = b".", b"X"

# Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2; 16-bit code at 0000:7c00.
_CODE = bytes.fromhex(
    "fa 31c0 8ed0 bc007c 8ed8 fc"  #       cli; ss = ds = 0; sp = 7c00; upwards
    "ba0020"  #                            segment = 2000
    "8ec2 31ff b90008 f3ab"  #        fill: its page = 0
    "81c20001 81fa0080 72ed"  #            segment += 100 while below 8000: fill
    "31db"  #                              number = 0
    "ba0020"  #                      round: segment = 2000
    "8ec2 31ff b91000 f6c601 7503 b90008"  # page: 16 words if odd, else 2048
    "89ce 89d8 f3af 7527"  #               all of them the number, or bad
    "b90008 29f1 7406 31c0 f3af 751a"  #   the rest, if any, zeros, or bad
    "31ff 89f1 89d8 40 f3ab"  #            all of them the number + 1
    "81c20001 81fa0080 72c9"  #            segment += 100 while below 8000: page
    "43 b02e e6e9 ebbf"  #                 number += 1; say a dot; round
    "b058 e6e9 f4 ebfd"  #            bad: say X; halt
)


def boot_arguments(directory: Path, console: Path) -> list[str]:
    """Arguments of a QEMU that boots it from a read-only floppy, and writes what it says to `console`."""
    floppy = directory / "self-checking.img"
    sector = _CODE.ljust(SECTOR_BYTES - 2, b"\0") + b"\x55\xaa"
    floppy.write_bytes(sector.ljust(FLOPPY_BYTES, b"\0"))
    disk = f"if=floppy,format=raw,readonly=on,file={floppy}"
    return ["-drive", disk, "-boot", "a", "-debugcon", f"file:{console}"]
