"""Cuts a byte stream into JSON objects: RFC 7047 section 4 puts no delimiter between messages.

python-ovs parses every character in Python where its C parser is missing (the `ovs` wheel has none); here one
regular expression finds the end of each object and the standard library's C parser does the rest.

It does NOT know JSON-RPC, and it does not repair: the first byte that cannot be part of an object is an error.
"""

from __future__ import annotations

import json
import re
from typing import Any

_TOKEN = re.compile(rb'[{}]|"(?:[^"\\]|\\.)*"|"', re.DOTALL)
_OPEN, _CLOSE = ord("{"), ord("}")
MAX_DEPTH = 100


class FramingError(Exception):
    """The peer sent something that is not a sequence of JSON objects."""


class JsonSplitter:
    """Feed it bytes as they arrive; it returns the objects completed by them.

    `limit_bytes` bounds what may be buffered for one object.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = b""
        self._scanned = 0
        self._depth = 0

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The objects that `data` completes, in order. Raises FramingError; do not feed again after that."""
        buffer = self._buffer + data
        complete: list[dict[str, Any]] = []
        begin, scanned, depth = 0, len(buffer), self._depth
        for token in _TOKEN.finditer(buffer, self._scanned):
            first = buffer[token.start()]
            if first == _OPEN:
                depth += 1
                if depth > MAX_DEPTH:
                    raise FramingError(f"JSON nested deeper than {MAX_DEPTH}")
            elif first == _CLOSE:
                depth -= 1
                if depth < 0:
                    break
                if depth == 0:
                    complete.append(_parse(buffer[begin : token.end()]))
                    begin = token.end()
            elif token.end() - token.start() == 1:
                scanned = token.start()  # a string whose end has not arrived yet: look at it again
                break
        rest = buffer[begin:]
        if (depth <= 0 and rest.strip()) or rest.lstrip()[:1] not in (b"", b"{"):
            raise FramingError(f"not a JSON object: {rest[:40]!r}")
        if len(rest) > self._limit_bytes:
            raise FramingError(f"one message is larger than {self._limit_bytes} bytes")
        self._buffer, self._scanned, self._depth = rest, scanned - begin, depth
        return complete


def _parse(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FramingError(f"bad JSON: {error}") from error
    if not isinstance(value, dict):
        raise FramingError(f"not a JSON object: {text[:40]!r}")
    return value
