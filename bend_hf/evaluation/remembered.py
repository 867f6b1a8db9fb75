"""Results that follow from the content of files alone, remembered in the user's cache folder.

A report over many records checks each against its predictions and compares models by them. What was found is noted by
the hashes of what was read and of the code that computed it, so that the next report reads the note. Without a
writable cache everything is computed each time.

>>> remember("doctest", ["a" * 64], {"p": 0.5})
>>> recalled("doctest", ["a" * 64]), recalled("doctest", ["b" * 64])
({'p': 0.5}, None)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from bend_hf import __version__
from bend_hf.files import asset_folder, atomic_path, cache_folder, file_sha256, json_sha256, parse_json
from bend_hf.types import Json

_FOLDER: Final = "evaluation"  # below $BEND_HF_CACHE
_LARGE_BYTES: Final = 1 << 24  # reading more takes longer than looking up a remembered hash


def recalled(kind: str, key: Sequence[Json]) -> Json:
    """Return what was remembered; None if nothing was, or if it cannot be read."""
    try:
        found: Json = parse_json(_note(kind, key).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found


def remember(kind: str, key: Sequence[Json], value: Json) -> None:
    """Note a result; nothing happens if the cache folder cannot be written.

    Args:
        kind: What it is.
        key: Everything that the result follows from, besides the code.
        value: The result.
    """
    with contextlib.suppress(OSError), atomic_path(_note(kind, key)) as part:
        part.write_text(json.dumps(value), encoding="utf-8")


def content_sha256(path: Path) -> str:
    """Hash the bytes of a file; of a large one that did not change, the hash is remembered (``files.file_sha256``)."""
    if path.stat().st_size > _LARGE_BYTES:
        return file_sha256(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note(kind: str, key: Sequence[Json]) -> Path:
    digest = json_sha256([kind, _code_sha256(), *key])
    return cache_folder(_FOLDER) / digest[:2] / f"{digest[2:34]}.json"


@cache
def _code_sha256() -> str:
    """Hash the code of this room and of the metrics; a change there makes everything be computed again."""
    here = Path(__file__).parent
    files = sorted([*here.rglob("*.py"), *asset_folder("metrics").rglob("*.py")])
    return json_sha256([__version__, *(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)])
