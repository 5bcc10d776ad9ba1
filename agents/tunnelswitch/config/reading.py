"""From TOML text to a checked Deployment.

Tables are walked by hand and single values are converted by msgspec: its own errors name a path with the table's name
left out, and stop at the first. Does not know what the keys mean.
"""

from __future__ import annotations

import functools
import tomllib
import types
import typing
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tunnelswitch.config.checks import check
from tunnelswitch.config.model import Deployment
from tunnelswitch.config.problems import DeploymentError, Problems, join_key, shown, suggestion
from tunnelswitch.errors import ConfigError

MAX_FILE_BYTES = 1024 * 1024
_Table = TypeVar("_Table", bound=msgspec.Struct)
_WORDS = {
    str: "a string in quotes",
    int: "a whole number",
    bool: "true or false",
    tuple[str, ...]: "a list of strings",
}


def load(path: Path) -> Deployment:
    """Read and check a deployment file.

    Raises:
        DeploymentError: the file cannot be read or used; every problem that could be found is in it.
    """
    key = shown(str(path)).strip('"')
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DeploymentError(
            [ConfigError(key, f"cannot be read: {reason}", "give a readable deployment file with --config")]
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise DeploymentError([ConfigError(key, f"is over {MAX_FILE_BYTES} bytes", "give a deployment file")])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DeploymentError(
            [ConfigError(key, f"line {line} is not UTF-8", "save the file as UTF-8; TOML is nothing else")]
        ) from None
    return parse(text, key)


def parse(text: str, source: str) -> Deployment:
    """Check a deployment given as text; `source` names it in errors.

    Raises:
        DeploymentError: it cannot be used; every problem that could be found is in it.
    """
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        raise DeploymentError([ConfigError(source, "is nested too deeply", "write it as tables")]) from None
    except ValueError as error:  # TOMLDecodeError, or a number with thousands of digits
        reason = ascii(str(error)).strip("'\"")
        raise DeploymentError(
            [ConfigError(source, f"is not TOML: {reason}", "correct that line (https://toml.io)")]
        ) from None
    problems = Problems()
    deployment = _read_table(raw, Deployment, "", problems)
    problems.raise_any()
    assert deployment is not None  # no problem, so every table was built
    check(deployment, problems)
    problems.raise_any()
    return deployment


def _read_table(raw: object, cls: type[_Table], key: str, problems: Problems) -> _Table | None:
    """Build one struct, or note everything that is wrong with it."""
    if not isinstance(raw, dict):
        problems.add(key, f"is {shown(raw)}", f"make it a table: [{key}]")
        return None
    fields = _fields(cls)
    values: dict[str, Any] = {}
    before = len(problems.errors)
    for name in raw:
        if name not in fields:
            problems.add(join_key(key, name), "is not a key we know", suggestion(name, fields, "keys here"))
    for name, field in fields.items():
        full = join_key(key, name)
        if name in raw:
            values[name] = _read_value(raw[name], field.type, full, problems)
        elif field.required:
            problems.add(full, "is missing", _remedy(field.type, full))
    return cls(**values) if len(problems.errors) == before else None


@functools.cache
def _fields(cls: type[_Table]) -> dict[str, msgspec.structs.FieldInfo]:
    """By name. Finding them out takes longer than reading a table, and a file may have a thousand."""
    return {field.name: field for field in msgspec.structs.fields(cls)}


def _read_value(raw: object, wanted: Any, key: str, problems: Problems) -> Any:
    table = _table_in(wanted)
    if table is not None:
        return _read_table(raw, table, key, problems)
    if typing.get_origin(wanted) is dict:
        if not isinstance(raw, dict):
            problems.add(key, f"is {shown(raw)}", f"make it tables: [{key}.NAME]")
            return None
        entry = typing.get_args(wanted)[1]
        return {name: _read_table(value, entry, join_key(key, name), problems) for name, value in raw.items()}
    try:
        return msgspec.convert(raw, wanted)
    except (msgspec.ValidationError, OverflowError):
        problems.add(key, f"is {shown(raw)}", _remedy(wanted, key))
        return None


def _table_in(wanted: Any) -> type[msgspec.Struct] | None:
    """The struct of `X` or `X | None`; None for anything else."""
    for option in typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,):
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            return option
    return None


def _remedy(wanted: Any, key: str) -> str:
    if typing.get_origin(wanted) is typing.Annotated:
        return f"give {wanted.__metadata__[0].description}"
    if _table_in(wanted) is not None:
        return f"add the table [{key}]"
    if typing.get_origin(wanted) is dict:
        return f"add a table [{key}.NAME]"
    if isinstance(wanted, type) and issubclass(wanted, StrEnum):
        return "give one of " + ", ".join(f'"{member.value}"' for member in wanted)
    return f"give {_WORDS[wanted]}"
