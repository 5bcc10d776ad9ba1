"""Collecting what is wrong with a deployment file, so that one look shows an operator everything. Knows no key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable

from tunnelswitch.errors import ConfigError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN_CHARACTERS = 60


class DeploymentError(ConfigError):
    """Everything that is wrong with the file; `errors` holds at least one. `key` is that of the first."""

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        super().__init__(first.key, first.problem.removeprefix(f"{first.key}: "), first.remedy)

    def diagnostics(self) -> str:
        """One line per error."""
        return "\n".join(error.diagnostics() for error in self.errors)


class Problems:
    """A list to add to, and to raise at the end of a stage."""

    def __init__(self) -> None:
        self.errors: list[ConfigError] = []

    def add(self, key: str, problem: str, remedy: str) -> None:
        """Note one problem of one key."""
        self.errors.append(ConfigError(key, problem, remedy))

    def raise_any(self) -> None:
        """End the stage.

        Raises:
            DeploymentError: something was noted.
        """
        if self.errors:
            raise DeploymentError(self.errors)


def join_key(parent: str, name: str) -> str:
    """A dotted TOML key; a part that is not a bare key is quoted, so that it stays on one line."""
    part = name if _BARE_KEY.fullmatch(name) else shown(name)
    return f"{parent}.{part}" if parent else part


def shown(value: object) -> str:
    """A value as the file would have it, on one line and not too long."""
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (TypeError, ValueError):
        text = ascii(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def suggestion(name: str, known: Iterable[str], what: str) -> str:
    """A remedy for a name that does not exist: the likely one, and all there are."""
    names = sorted(known)
    if not names:
        return f"there are no {what}"
    close = difflib.get_close_matches(name, names, n=1)
    prefix = f"did you mean {close[0]}? " if close else ""
    return f"{prefix}{what}: {', '.join(names)}"
