"""The stored outputs of every tiny checkpoint, by its name, whichever of the two folders of references holds it.

BEND's own code gave those of ``golden``, the models' original code those of ``golden/more``.
"""

from __future__ import annotations

import json
import runpy
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.shared_data import GOLDEN

ROOTS: Final = (GOLDEN, GOLDEN / "more")


@cache
def reader(root: Path) -> Any:
    """The reader that a folder of references brings, ``load.py``."""
    return runpy.run_path(str(root / "load.py"))["Golden"](str(root))


@cache
def root_of(name: str) -> Path:
    """The folder of references that holds a checkpoint."""
    return next(root for root in ROOTS if name in json.loads((root / "index.json").read_text())["embedders"])


def golden(name: str) -> Any:
    """The reader of the folder that holds a checkpoint."""
    return reader(root_of(name))


def entry_of(name: str) -> Any:
    """What the index says of a checkpoint."""
    return golden(name).index["embedders"][name]


def folder_of(name: str) -> Path:
    """The checkpoint's files."""
    return root_of(name) / str(entry_of(name)["ckpt"])


def arrays(name: str) -> Any:
    """All arrays that are stored for a checkpoint."""
    return golden(name).npz(entry_of(name)["npz"])


def sequence_of(name: str, case: str) -> str:
    """The nucleotides of a case."""
    return str(golden(name).sequences[case])


def cases(*names: str, holding: str | None = None) -> list[tuple[str, str]]:
    """(checkpoint, case) for each stored case, or those that have an array of that kind; none without the data."""
    if not GOLDEN.is_dir():
        return []
    found = [(name, case) for name in names for case in golden(name).sequence_names(name)]
    return [(name, case) for name, case in found if holding is None or f"{case}/{holding}" in arrays(name)]
