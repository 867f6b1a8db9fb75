"""The stored outputs of the models of today, by the name of their tiny checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tests.parity.golden import reader
from tests.shared_data import GOLDEN

ROOT: Final = GOLDEN / "new"


def golden() -> Any:
    """The reader of the folder."""
    return reader(ROOT)


def folder_of(name: str) -> Path:
    """The checkpoint's files."""
    return ROOT / "ckpt" / name
