"""The schema version of result records, and the upgrade of older versions.

The schema is published as ``model_cards/result.schema.json`` (JSON Schema, draft 2020-12), for readers without this
package; the tests hold written records to it. To change the form of records, edit the schema, raise ``SCHEMA_VERSION``
and add a step to ``_STEPS``.

>>> upgraded({"schema_version": 1})["schema_version"] == SCHEMA_VERSION
True
"""

from __future__ import annotations

import re
from typing import Final

from bend_hf.errors import RecordError
from bend_hf.types import Json

SCHEMA_VERSION: Final = 3
_LATER: Final = ("diagnostics", "kept", "strands", "layers", "shots")  # unknown in records of earlier releases
SCHEMA_FILE: Final = "result.schema.json"


def upgraded(body: Json) -> dict[str, Json]:
    """Bring a record of an older version to the form of the current one.

    Raises:
        RecordError: It is not a record, or its version is not supported.
    """
    version = body.get("schema_version") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise RecordError(
            f"the schema version is {version!r}; expected 1 to {SCHEMA_VERSION}, as result records have. Repeat the run"
        )
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"the schema version is {version}, but this release of bend_hf reads 1 to {SCHEMA_VERSION}; upgrade bend_hf"
        )
    for old in range(version, SCHEMA_VERSION):
        body = _STEPS[old](body)
    body = {**dict.fromkeys(_LATER), **body}
    model = body.get("model")
    if isinstance(model, dict) and "licence" in model:  # as records of earlier releases spell it
        body = {**body, "model": {"license" if name == "licence" else name: value for name, value in model.items()}}
    return body


_STAMP: Final = re.compile(r"__(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)")


def _from_1(body: dict[str, Json]) -> dict[str, Json]:
    """Version 1 had no controls and no alignment, and its time only in the names of its files."""
    predictions = body.get("predictions")
    name = predictions.get("file") if isinstance(predictions, dict) else None
    stamp = _STAMP.search(name) if isinstance(name, str) else None
    moment = "{}-{}-{}T{}:{}:{}Z".format(*stamp.groups()) if stamp else None
    return {**body, "schema_version": 2, "created_at": moment, "controls": {}, "alignment": None}


def _from_2(body: dict[str, Json]) -> dict[str, Json]:
    """Version 2 had percentile intervals of a bootstrap over items; they stay, and their method says so."""
    return {**body, "schema_version": 3}


_STEPS: Final = {1: _from_1, 2: _from_2}
