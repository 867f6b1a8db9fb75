"""Text files written whole or not at all.

>>> import tempfile
>>> write_text(Path(tempfile.mkdtemp()) / "new" / "a.txt", "one").read_text()
'one'
"""

from __future__ import annotations

import os
from pathlib import Path

from bend_hf.errors import RecordError


def write_text(path: Path, text: str) -> Path:
    """Writes a text file in one step; an older one of the name is replaced.

    Raises:
        RecordError: It cannot be written.
    """
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> Path:
    """The same for bytes.

    Raises:
        RecordError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RecordError(f"{path} cannot be written ({error}); free some space or give another --out") from error
    return path
