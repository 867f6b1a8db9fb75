"""The published JSON schema of result records, a small checker for it, and the way up from older versions.

The schema is ``model_cards/result.schema.json`` (JSON Schema, draft 2020-12), for whoever reads records without this
package. The checker knows the keywords that the schema uses and refuses others, so that none is passed over.

>>> violations({"schema_version": 2})[0]
"the record lacks 'created_at'"
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

from bend_hf.files import asset_folder
from bend_hf.types import Json

SCHEMA_VERSION: Final = 2
SCHEMA_FILE: Final = "result.schema.json"

_STAMP: Final = re.compile(r"__(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)")
_KINDS: Final[dict[str, Callable[[Json], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value),
    "null": lambda value: value is None,
}
_IN_WORDS: Final = frozenset({"$schema", "$id", "$defs", "title", "description", "examples"})
_CHECKED: Final = frozenset(
    {"$ref", "type", "enum", "const", "pattern", "minimum", "maximum", "required", "properties"}
    | {"additionalProperties", "items"}
)


@cache
def schema() -> dict[str, Json]:
    """The schema as it is published."""
    body: dict[str, Json] = json.loads((asset_folder("model_cards") / SCHEMA_FILE).read_text(encoding="utf-8"))
    return body


def violations(body: Json) -> list[str]:
    """Where a record of the current version breaks the schema; empty where it does not."""
    return list(check(body, schema(), schema(), "the record"))


def check(value: Json, rule: Json, root: dict[str, Json], where: str) -> Iterator[str]:
    """Says where a value breaks a rule of a schema.

    Args:
        value: What to check.
        rule: The rule, a schema object.
        root: The whole schema, for references into its ``$defs``.
        where: What to call the value.

    Raises:
        ValueError: The schema uses a keyword that is not checked here.
    """
    assert isinstance(rule, dict)
    unknown = sorted(set(rule) - _IN_WORDS - _CHECKED)
    if unknown:
        raise ValueError(f"the schema uses {unknown}, which this checker does not know")
    if isinstance(reference := rule.get("$ref"), str):
        definitions = root["$defs"]
        assert isinstance(definitions, dict)
        yield from check(value, definitions[reference.removeprefix("#/$defs/")], root, where)
    kinds = rule.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    assert isinstance(kinds, list)
    if kinds and not any(_KINDS[str(kind)](value) for kind in kinds):
        yield f"{where} is {_short(value)}; expected {' or '.join(map(str, kinds))}"
        return
    yield from _check_scalar(value, rule, where)
    if isinstance(value, dict):
        yield from _check_object(value, rule, root, where)
    if isinstance(value, list) and "items" in rule:
        for index, item in enumerate(value):
            yield from check(item, rule["items"], root, f"{where}[{index}]")


def _check_scalar(value: Json, rule: dict[str, Json], where: str) -> Iterator[str]:
    if "const" in rule and value != rule["const"]:
        yield f"{where} is {_short(value)}; expected {rule['const']!r}"
    choices = rule.get("enum")
    if isinstance(choices, list) and value not in choices:
        yield f"{where} is {_short(value)}; expected one of {choices}"
    pattern = rule.get("pattern")
    if isinstance(pattern, str) and isinstance(value, str) and not re.search(pattern, value):
        yield f"{where} is {_short(value)}; expected the form {pattern}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = rule.get("minimum"), rule.get("maximum")
        if isinstance(low, int | float) and value < low:
            yield f"{where} is {value}; expected at least {low}"
        if isinstance(high, int | float) and value > high:
            yield f"{where} is {value}; expected at most {high}"


def _check_object(value: dict[str, Json], rule: dict[str, Json], root: dict[str, Json], where: str) -> Iterator[str]:
    required, known = rule.get("required", []), rule.get("properties", {})
    assert isinstance(required, list)
    assert isinstance(known, dict)
    for name in map(str, required):
        if name not in value:
            yield f"{where} lacks {name!r}"
    others = rule.get("additionalProperties", True)
    for name, item in value.items():
        if name in known:
            yield from check(item, known[name], root, f"{where}.{name}" if where != "the record" else name)
        elif others is False:
            yield f"{where} has {name!r}, which the schema does not know"
        elif isinstance(others, dict):
            yield from check(item, others, root, f"{where}.{name}")


def _short(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def upgraded(body: Json) -> dict[str, Json]:
    """A record of any version this release can read, in the form of the current one.

    Raises:
        ValueError: It is no record, or of a version that cannot be read; the message says what to do.
    """
    version = body.get("schema_version") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"has schema version {version!r}; result records have 1 to {SCHEMA_VERSION}, run it again")
    if version > SCHEMA_VERSION:
        raise ValueError(f"has schema version {version}, this release reads 1 to {SCHEMA_VERSION}; install a newer one")
    for old in range(version, SCHEMA_VERSION):
        body = _STEPS[old](body)
    return body


def _from_1(body: dict[str, Json]) -> dict[str, Json]:
    """Version 1 had no controls, no account of alignment, and its moment in the name of its files alone."""
    predictions = body.get("predictions")
    name = predictions.get("file") if isinstance(predictions, dict) else None
    stamp = _STAMP.search(name) if isinstance(name, str) else None
    moment = "{}-{}-{}T{}:{}:{}Z".format(*stamp.groups()) if stamp else None
    return {**body, "schema_version": 2, "created_at": moment, "controls": {}, "alignment": None}


_STEPS: Final = {1: _from_1}
