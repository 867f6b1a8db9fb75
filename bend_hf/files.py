"""Where the folders that travel with the package are: metrics, cards, launch configurations, the sample.

In a checkout they stand at its top; in an installed wheel inside the package. This one function knows.

>>> asset_folder("metrics").is_dir()
True

Text files written whole or not at all.

>>> import tempfile
>>> write_text(Path(tempfile.mkdtemp()) / "new" / "a.txt", "one").read_text()
'one'

The sha256 of a file, computed once as long as the file stays as it is.

For the genome, whose three gigabytes take seconds; a small note in the user's cache folder remembers the sum for
a path, a size and a time of change. A cache that cannot be read or written is done without.

>>> file_sha256("pyproject.toml") == file_sha256("pyproject.toml")
True

How the commands speak: plain lines for people, and nothing of what libraries say of every request.

>>> start_logging()
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
import uuid
from pathlib import Path
from typing import Final, Literal, TypeAlias

from bend_hf.errors import RecordError, SourceError

Asset: TypeAlias = Literal["metrics", "model_cards", "accelerate_configs", "dataset_scripts", "sample", "pretrained"]


def asset_folder(name: Asset) -> Path:
    """The folder of that name, in a checkout or in an installed wheel.

    Raises:
        SourceError: Neither place holds it; the installation is broken.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "_assets" / name, package / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise SourceError(f"the folder {name!r} of bend_hf is missing below {package}; install the package again")


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


_CHATTY: Final = ("httpx", "httpx2", "httpcore", "datasets", "evaluate", "filelock", "accelerate")


def start_logging() -> None:
    """Shows this package's messages as they are, of chatty libraries warnings alone; for commands, not on import."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
