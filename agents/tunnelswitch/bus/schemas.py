"""The public contract as files: JSON Schemas (2020-12), examples, an AsyncAPI 3.0 document and the README's table.

    python -m tunnelswitch.bus.schemas bus_schemas            # write
    python -m tunnelswitch.bus.schemas --check bus_schemas    # exit status 1 if a file differs from the types

Everything comes from the core's dataclasses, the table of kinds and the limits: there is nothing to edit by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from tunnelswitch.bus import codec, limits, samples
from tunnelswitch.bus.subjects import BY_NAME, PREFIX, RECORD, Kind, subject_of

REFS = "#/$defs/{name}"
TIME_PATTERN = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"
BEGIN, END = "<!-- generated: table of types -->", "<!-- end of generated -->"


def files() -> dict[str, str]:
    """Every generated file, by its path below `bus_schemas/`."""
    built = {"asyncapi.json": _text(asyncapi())}
    for message in samples.all_samples():
        kind = _kind_of(message)
        built[f"v1/{kind.name}.json"] = _text(schema(kind))
        for path, example in examples(kind, message).items():
            built[f"v1/examples/{path}"] = _text(example)
    return built


def schema(kind: Kind) -> dict[str, Any]:
    """The JSON Schema of one kind of message, envelope included."""
    (data,), components = msgspec.json.schema_components([kind.message_type], ref_template=REFS)
    definitions = json.loads(json.dumps(components))
    for definition in definitions.values():
        definition["description"] = " ".join(definition.get("description", "").split())
        _bound(definition)
    stamp = definitions["Stamp"]["properties"] if "Stamp" in definitions else {}
    for bounded, maximum in limits.STAMP_BOUNDS.items():
        stamp.get(bounded, {})["maximum"] = maximum
    if stamp:
        stamp["decision_id"] = {"type": "string", "pattern": limits.DECISION_PATTERN}
    name: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 256}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:tunnelswitch:v1:{kind.name}",
        "title": codec.type_name(kind.name),
        "type": "object",
        "properties": {
            "specversion": {"const": codec.SPECVERSION},
            "id": name | {"description": "Unique for the source."},
            "source": name | {"description": "Who sent it, such as gateway/switcher."},
            "type": {"const": codec.type_name(kind.name)},
            "time": {"type": "string", "format": "date-time", "pattern": TIME_PATTERN},
            "data": dict(data),
        },
        "required": ["specversion", "id", "source", "type", "time", "data"],
        "$defs": dict(sorted(definitions.items())),
    }


def _bound(node: object) -> None:
    """Write the decoder's limits into a schema made from plain types."""
    if isinstance(node, list):
        for item in node:
            _bound(item)
    if not isinstance(node, dict):
        return
    match node.get("type"):
        case "string":
            node["maxLength"] = limits.STRING_CHARACTERS
        case "integer":
            node.update(minimum=0, maximum=limits.INTEGER)
        case "number":
            node.update(minimum=0, maximum=limits.NUMBER)
        case "array" if "prefixItems" not in node:
            node["maxItems"] = limits.ENTRIES
        case "object" if isinstance(node.get("additionalProperties"), dict):
            node["maxProperties"] = limits.ENTRIES
            node["propertyNames"] = {"maxLength": limits.STRING_CHARACTERS}
    for name, child in list(node.items()):
        if name != "propertyNames":
            _bound(child)


def examples(kind: Kind, message: Any) -> dict[str, dict[str, Any]]:
    """A message that must be taken, one of a later minor version that must be taken too, and some that must not."""
    valid = json.loads(codec.encode(message, "gateway/switcher", f"{kind.name}-1", samples.TIME))
    key = kind.named_by.split(".", maxsplit=1)[0]
    number = next((name for name, value in valid["data"].items() if type(value) in (int, float)), None)
    broken = {
        "missing_field": _with_data(valid, {key: None}, drop=True),
        "wrong_type": _with_data(valid, {key: 17}),
        "other_version": valid | {"type": valid["type"].replace(".v1.", ".v2.")},
        "no_time_zone": valid | {"time": valid["time"].removesuffix("Z")},
    }
    if number is not None:
        broken["negative"] = _with_data(valid, {number: -1})
    if "stamp" in valid["data"]:
        broken["bad_decision_id"] = _with_data(valid, {"stamp": valid["data"]["stamp"] | {"decision_id": "a b"}})
    named = {f"invalid/{kind.name}.{why}.json": example for why, example in broken.items()}
    return {f"valid/{kind.name}.json": valid, f"future/{kind.name}.json": _from_the_future(valid)} | named


def _with_data(example: dict[str, Any], change: dict[str, Any], *, drop: bool = False) -> dict[str, Any]:
    data = example["data"] | change
    return example | {"data": {k: v for k, v in data.items() if not (drop and k in change)}}


def _from_the_future(example: dict[str, Any]) -> dict[str, Any]:
    data = example["data"] | {"added_in_a_later_version": {"nested": [1, None, "x"]}}
    if "stamp" in data:
        data["stamp"] = data["stamp"] | {"added_in_a_later_version": True}
    return example | {"data": data, "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


def asyncapi() -> dict[str, Any]:
    """AsyncAPI 3.0: who listens to what where."""
    channels, operations = {}, {}
    for kind in BY_NAME.values():
        last = kind.named_by.rsplit(".", maxsplit=1)[-1]
        channels[kind.name] = {
            "address": f"{PREFIX}.{{cluster}}.{kind.name}.{{{last}}}",
            "parameters": {
                "cluster": {"description": "The deployment's name."},
                last: {"description": f"The {last} that the message is about."},
            },
            "messages": {
                kind.name: {
                    "name": codec.type_name(kind.name),
                    "contentType": "application/cloudevents+json",
                    "payload": {"$ref": f"./v1/{kind.name}.json"},
                }
            },
        }
        operations[f"send_{kind.name}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{kind.name}"},
            "summary": _summary(kind),
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tunnelswitch bus",
            "version": "1.0.0",
            "description": "What the agents of a deployment publish on NATS.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": channels,
        "operations": operations,
    }


def table() -> str:
    """The README's table of types and subjects."""
    rows = ["| type | subject | what it says |", "|---|---|---|"]
    for kind in BY_NAME.values():
        last = kind.named_by.rsplit(".", maxsplit=1)[-1].upper()
        link = f"[`{codec.type_name(kind.name)}`](v1/{kind.name}.json)"
        rows.append(f"| {link} | `{PREFIX}.CLUSTER.{kind.name}.{last}` | {_summary(kind)} |")
    return "\n".join(rows)


def _summary(kind: Kind) -> str:
    text = " ".join((kind.message_type.__doc__ or "").split())
    if kind is RECORD:
        return f"{text} Republished by the store itself."
    return text


def _kind_of(message: Any) -> Kind:
    return BY_NAME[subject_of("lab", message).split(".")[3]]


def _text(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _with_table(readme: str) -> str:
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def wanted(directory: Path) -> dict[Path, str]:
    """What every file of `directory` that we make should hold."""
    contents = {directory / name: text for name, text in files().items()}
    readme = directory / "README.md"
    if readme.exists():
        contents[readme] = _with_table(readme.read_text(encoding="utf-8"))
    return contents


def differences(directory: Path) -> list[str]:
    """One line per file that is missing, differs from the types, or is there without a type."""
    contents = wanted(directory)
    found = set((directory / "v1").rglob("*.json")) if directory.exists() else set()
    lines = [f"{path}: nothing generates this file; remove it" for path in sorted(found - contents.keys())]
    for path, text in contents.items():
        if not path.exists():
            lines.append(f"{path}: missing")
        elif path.read_text(encoding="utf-8") != text:
            lines.append(f"{path}: differs from the types")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tunnelswitch.bus.schemas", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if a file is out of date")
    parser.add_argument("directory", type=Path)
    options = parser.parse_args(arguments)
    if options.check:
        lines = differences(options.directory)
        if lines:
            lines.append("write them anew: python -m tunnelswitch.bus.schemas bus_schemas")
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        return 1 if lines else 0
    for path, text in wanted(options.directory).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
