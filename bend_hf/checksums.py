"""The sha256 of a file, computed once as long as the file stays as it is.

For the genome, whose three gigabytes take seconds; a small note in the user's cache folder remembers the sum for
a path, a size and a time of change. A cache that cannot be read or written is done without.

>>> file_sha256("pyproject.toml") == file_sha256("pyproject.toml")
True
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
import uuid
from pathlib import Path
from typing import Final

_SETTLED_NS: Final = 2_000_000_000  # a file changed later than this may change again within one tick of its clock


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's bytes in hexadecimal.

    Raises:
        OSError: The file cannot be read.
    """
    path = Path(path).resolve()
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        key = [str(path), stat.st_size, stat.st_mtime_ns]
        note = _cache_folder() / (hashlib.sha256(str(path).encode()).hexdigest()[:32] + ".json")
        remembered = _read(note)
        if remembered is not None and remembered[0] == key:
            return remembered[1]
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - stat.st_mtime_ns > _SETTLED_NS:
        _write(note, json.dumps({"file": key, "sha256": digest}))
    return digest


def _cache_folder() -> Path:
    """Where the notes are: ``sha256`` below ``$BEND_HF_CACHE``, or below ``~/.cache/bend_hf``."""
    base = Path(os.environ.get("BEND_HF_CACHE") or os.path.expanduser("~/.cache/bend_hf"))
    return (base if base.is_absolute() else Path(tempfile.gettempdir()) / "bend_hf") / "sha256"


def _read(note: Path) -> tuple[list[object], str] | None:
    try:
        found = json.loads(note.read_text())
        return found["file"], str(found["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(note: Path, text: str) -> None:
    partial = note.with_name(f"{note.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text)
        partial.replace(note)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
