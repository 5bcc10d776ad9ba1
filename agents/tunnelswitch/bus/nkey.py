"""Nkeys (docs.nats.io, "NKeys"): Ed25519 key pairs whose secret half, the seed, is one line in a file.

A server knows the public half only, and a client signs what the server challenges it with: no secret is ever sent.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import nkeys

from tunnelswitch.errors import BusError

SUFFIX = ".nk"
_SEED_BYTES = 32
_SEED_FILE_BYTES = 4096
_OTHERS_MAY = 0o027
"""The group may read it, as when a container's user shares a volume by its group; nobody else, and nobody may write."""
_MAKE = "make one with `tunnelswitch pki init`"


def make(path: Path) -> str:
    """Write a new seed, readable by its owner alone, and return its public key.

    Raises:
        OSError: it cannot be written, or is there already.
    """
    seed: bytes = nkeys.encode_seed(secrets.token_bytes(_SEED_BYTES), nkeys.PREFIX_BYTE_USER)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(seed + b"\n")
    return _public(seed)


def public(path: Path) -> str:
    """The public key of a seed file.

    Raises:
        BusError: as `read`.
    """
    return _public(read(path).encode())


def read(path: Path) -> str:
    """The seed in a file.

    Raises:
        BusError: the file cannot be read, others may read or change it, or it holds no user's seed.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            seed = file.read(_SEED_FILE_BYTES).strip()
    except OSError as error:
        remedy = "copy it here, or " + _MAKE if isinstance(error, FileNotFoundError) else "let this process read it"
        raise BusError(f"the key {path} cannot be read: {error.strerror}", remedy) from None
    if mode & _OTHERS_MAY:
        raise BusError(f"the key {path} is open to others (mode {mode & 0o777:o})", f"chmod 600 {path}")
    try:
        _public(seed)
    except (nkeys.NkeysError, ValueError, IndexError):
        kind = "a public key, not the seed" if seed[:1] == b"U" else "no user's nkey seed"
        raise BusError(f"{path} holds {kind}", _MAKE) from None
    return seed.decode("ascii")


def _public(seed: bytes) -> str:
    if not seed.startswith(b"SU"):
        raise ValueError("not a user's seed")
    text: str = nkeys.from_seed(bytearray(seed)).public_key.decode()
    return text
