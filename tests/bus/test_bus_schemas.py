"""The public contract: the files are those of the types, and a JSON Schema validator agrees with our decoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from tunnelswitch.bus import codec, schemas, subjects
from tunnelswitch.errors import BadMessageError

CONTRACT = Path(__file__).parents[2] / "bus_schemas"
EXAMPLES = CONTRACT / "v1" / "examples"


def schema_of(example: Path) -> dict:
    return json.loads((CONTRACT / "v1" / f"{example.name.split('.')[0]}.json").read_text())


def every(folder: str) -> list:
    return [pytest.param(path, id=path.stem) for path in sorted((EXAMPLES / folder).iterdir())]


def test_the_files_are_those_of_the_types() -> None:
    assert schemas.differences(CONTRACT) == []


def test_a_difference_is_found_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "bus_schemas"
    shutil.copytree(CONTRACT, copy)
    (copy / "v1" / "proof.json").unlink()
    (copy / "v1" / "move.json").write_text("{}\n")
    (copy / "v1" / "gossip.json").write_text("{}\n")
    assert schemas.main(["--check", str(copy)]) == 1
    said = capsys.readouterr().err
    assert "proof.json: missing" in said
    assert "move.json: differs" in said
    assert "gossip.json: nothing generates" in said
    (copy / "v1" / "gossip.json").unlink()
    assert schemas.main([str(copy)]) == 0
    assert schemas.main(["--check", str(copy)]) == 0


@pytest.mark.parametrize("kind", subjects.BY_NAME)
def test_schemas_are_schemas(kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads((CONTRACT / "v1" / f"{kind}.json").read_text()))


@pytest.mark.parametrize("example", every("valid") + every("future"))
def test_both_take_it(example: Path) -> None:
    text = example.read_bytes()
    jsonschema.Draft202012Validator(schema_of(example)).validate(json.loads(text))
    assert type(codec.decode(text).message) is subjects.BY_NAME[example.stem].message_type


@pytest.mark.parametrize("example", every("invalid"))
def test_both_refuse_it(example: Path) -> None:
    text = example.read_bytes()
    assert not jsonschema.Draft202012Validator(schema_of(example)).is_valid(json.loads(text))
    with pytest.raises(BadMessageError):
        codec.decode(text)


def test_the_asyncapi_document_points_at_the_schemas() -> None:
    document = json.loads((CONTRACT / "asyncapi.json").read_text())
    assert document["asyncapi"].startswith("3.")
    assert document["channels"].keys() == subjects.BY_NAME.keys()
    for name, channel in document["channels"].items():
        assert (CONTRACT / channel["messages"][name]["payload"]["$ref"]).exists()
