"""What interrupted processes leave behind: unfinished files, locks of dead processes, states to resume from, caches.

A file that a living process may still need is listed, with the reason, but never removed.

>>> import tempfile; folder = Path(tempfile.mkdtemp())
>>> _ = (folder / ".scores.csv.part4194305-0a1b2c3d").write_text("half")
>>> [(item.kind, item.size_bytes, item.kept_because) for item in find_leftovers([folder], settled_s=-1)]
[('unfinished', 4, None)]
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from bend_hf.files import SCORED_VARIANTS, TRAINING_STATE, cache_folder
from bend_hf.lease import Watch, process_lives

Kind: TypeAlias = Literal["unfinished", "lock", "resumable", "cache"]

SETTLED_S: Final = 600.0  # a process of another machine that writes shows itself within this time
CACHES: Final = ("embeddings", "genomes", "models", "sha256")  # folders in $BEND_HF_CACHE
_PART: Final = re.compile(r"\..+\.(?:part|old)(?P<pid>\d+)(?:-[0-9a-f]{8})?")  # files.atomic_path; a built folder
_SHARD: Final = re.compile(r"shard-\d+-of-\d+\.[0-9a-f]{32}\.part")  # a shard of the embedding cache
_LOCK: Final = re.compile(r".+\.lock")
_LOCK_PART: Final = re.compile(r".+\.lock\.[0-9a-f]{32}(?:\.dead)?")  # lease.take, before and after its life
_LEASE_TRIAL: Final = re.compile(r"\.lease-test\..+")  # lease.lease_problem
# evaluation.record.free_stem, and the files that runs.outcome.write_outcome writes
_RUN: Final = re.compile(r"(?P<stem>.+__seed-?\d+__\d{8}T\d{6}(?:-\d+)?)(?:\.[^.]+_probe)?\.(?:parquet|safetensors)")
_RESUMABLE: Final = (TRAINING_STATE, SCORED_VARIANTS)
_DOWNLOAD: Final = re.compile(r"[^.].*\.part")


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A file or folder that can be removed.

    Attributes:
        path: Where it is.
        kind: ``unfinished`` and ``lock`` are of no use to anyone; ``resumable`` is what an interrupted run or download
            would resume from; ``cache`` is computed again when it is needed.
        size_bytes: Size of its files.
        kept_because: Why it must stay; None if it may be removed.
    """

    path: Path
    kind: Kind
    size_bytes: int
    kept_because: str | None = None

    def remove(self) -> None:
        """Remove it.

        Raises:
            OSError: It cannot be removed.
        """
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def find_leftovers(folders: Sequence[Path], *, caches: bool = False, settled_s: float = SETTLED_S) -> list[Leftover]:
    """Find what interrupted processes left in folders, sorted by path.

    Args:
        folders: Folders to search, with all folders inside them.
        caches: List the caches below ``$BEND_HF_CACHE`` too.
        settled_s: What changed less than this many seconds ago may be in use on another machine, and stays.
    """
    found = {item.path: item for folder in folders for item in _search(folder, settled_s)}
    if caches:
        for path in map(cache_folder, CACHES):
            if path.is_dir():
                busy = next((item for item in _search(path, settled_s) if item.kept_because), None)
                found[path] = Leftover(
                    path=path,
                    kind="cache",
                    size_bytes=_size(path),
                    kept_because=f"{busy.path.name} in it: {busy.kept_because}" if busy else None,
                )
    return [found[path] for path in sorted(found)]


def _search(folder: Path, settled_s: float) -> Iterator[Leftover]:
    for parent, names, files in os.walk(folder):
        here = Path(parent)
        for name in sorted([*names, *files]):
            kind = _kind_of(here / name)
            if kind is not None:
                path = here / name
                yield Leftover(
                    path=path, kind=kind, size_bytes=_size(path), kept_because=_why_kept(path, kind, settled_s)
                )
        names[:] = sorted(name for name in names if _kind_of(here / name) is None)


_KINDS: Final[tuple[tuple[Kind, Callable[[str], object]], ...]] = (
    ("unfinished", _PART.fullmatch),
    ("unfinished", _SHARD.fullmatch),
    ("unfinished", _LOCK_PART.fullmatch),
    ("unfinished", _LEASE_TRIAL.fullmatch),
    ("lock", _LOCK.fullmatch),
    ("resumable", _RESUMABLE.__contains__),
    ("resumable", _DOWNLOAD.fullmatch),
)


def _kind_of(path: Path) -> Kind | None:
    run = _RUN.fullmatch(path.name)
    if run is not None and _has_no_record(path.with_name(run["stem"])):
        return "unfinished"
    kind = next((kind for kind, fits in _KINDS if fits(path.name)), None)
    if kind == "lock" and not _is_lease(path):
        return None
    return kind


def _is_lease(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.is_file() and b'"token"' in path.read_bytes()[:4096]
    return False


def _has_no_record(stem: Path) -> bool:
    """Whether a run had taken this name for its predictions, and ended before its record."""
    taken, record = (stem.with_name(f"{stem.name}.{ending}") for ending in ("parquet", "json"))
    return taken.is_file() and not record.exists()


def _is_empty(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.is_file() and path.stat().st_size == 0
    return False


def _why_kept(path: Path, kind: Kind, settled_s: float) -> str | None:
    part = _PART.fullmatch(path.name)
    if part is not None and process_lives(int(part["pid"])):
        return f"process {part['pid']} may be writing it"
    if kind == "lock":
        watch = Watch()
        if watch.is_stale(path):
            return None
        if watch.lives(path):
            return "its process lives"
    run = _RUN.fullmatch(path.name)
    if run is not None and not _is_empty(path.with_name(f"{run['stem']}.parquet")):
        return "its predictions are whole, and only the record is gone; remove it yourself"
    written = [path] if run is None else sorted(path.parent.glob(f"{glob.escape(run['stem'])}.*"))
    changed_s = time.time() - max(map(_changed, written), default=0.0)
    if changed_s < settled_s:
        return f"it changed {max(changed_s, 0):.0f} s ago"
    if (
        ".old" in path.name
        and part is not None
        and not path.with_name(path.name[1 : path.name.rindex(".old")]).exists()
    ):
        return "it is the last complete build; build again"
    return None


def _files(path: Path) -> Iterator[Path]:
    yield path
    for parent, _, names in os.walk(path):
        yield from (Path(parent) / name for name in names)


def _size(path: Path) -> int:
    total = 0
    for file in _files(path):
        with contextlib.suppress(OSError):
            stat = file.lstat()
            total += 0 if file == path and path.is_dir() else stat.st_size
    return total


def _changed(path: Path) -> float:
    latest = 0.0
    for file in _files(path):
        with contextlib.suppress(OSError):
            latest = max(latest, file.lstat().st_mtime)
    return latest
