"""List the entries of a cache with their sizes, verify every byte, and remove entries."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bend_hf.embedders._probe import PROBES
from bend_hf.embedders.cache.shards import ABOUT, ShardFiles, ShardPlan, State, read_plan
from bend_hf.errors import CacheError
from bend_hf.lease import Watch

_DAY_S: Final = 86_400.0
_ARROW: Final = re.compile(r"shard-\d+-of-\d+\.arrow")


@dataclass(frozen=True, kw_only=True)
class EntryInfo:
    """One entry of a cache.

    Attributes:
        path: Its folder.
        plan: Its plan; None if that cannot be read.
        n_finished: Number of finished shards, by their records.
        size_bytes: Size of all its files.
        changed: When a file in it last changed, in seconds since 1970.
    """

    path: Path
    plan: ShardPlan | None
    n_finished: int
    size_bytes: int
    changed: float

    @property
    def shards(self) -> list[ShardFiles]:
        """Its shards, finished or not."""
        return ShardFiles.of_entry(self.path, self.plan.n_shards) if self.plan is not None else []

    @property
    def is_whole(self) -> bool:
        """Whether every shard is finished."""
        return self.plan is not None and self.n_finished == self.plan.n_shards

    def text(self) -> str:
        """Describe it in one line."""
        size = f"{self.size_bytes / 1e9:10.3f} GB"
        if self.plan is None:
            return f"{size}  {self.path.name}  cannot be read; 'bend-hf cache prune --broken' removes it"
        plan = self.plan
        state = "whole" if self.is_whole else f"{self.n_finished} of {plan.n_shards} shards"
        facts = f"{plan.model}, width {plan.width}, {plan.dtype}, {plan.items:,} items, {plan.nucleotides:,} bp"
        return f"{size}  {plan.label or '-'}: {facts}; {state}; {self.path.name}"

    def words(self) -> str:
        """Return its folder's name, its label and its model."""
        return self.path.name if self.plan is None else f"{self.path.name} {self.plan.label} {self.plan.model}"


@dataclass(frozen=True, kw_only=True)
class FinishedShards:
    """Which shards of an entry are finished, by the names of its files alone.

    Attributes:
        path: The folder of the entry.
        plan: Its plan; None if that cannot be read.
        finished: The names of the records of its finished shards.
        changed: When a file was last added or removed, in seconds since 1970.
    """

    path: Path
    plan: ShardPlan | None
    finished: tuple[str, ...]
    changed: float

    def finished_times(self, *, every: int = 1) -> list[float]:
        """Return when each shard was finished, in seconds since 1970.

        Args:
            every: Look at one of so many shards, because a look at each file of a network file system takes long.
        """
        folder, times = str(self.path), []
        for name in self.finished[::every]:
            with contextlib.suppress(OSError):  # removed since
                times.append(os.stat(f"{folder}/{name}").st_mtime)  # noqa: PTH116  a Path costs more than the look
        return times


def inventory(cache: Path) -> list[FinishedShards]:
    """List the entries of a cache with their finished shards, sorted by name; only plans are read.

    >>> inventory(Path("no/such/cache"))
    []
    """
    found = []
    for name in _folders(cache):
        path = cache / name
        with os.scandir(path) as files:
            names = [file.name for file in files]
        if not _is_entry(names):
            continue
        finished = tuple(sorted(one for one in names if _is_record(one)))
        found.append(FinishedShards(path=path, plan=_plan_of(path), finished=finished, changed=path.stat().st_mtime))
    return found


def list_entries(cache: Path) -> list[EntryInfo]:
    """List the entries of a cache, sorted by name.

    >>> list_entries(Path("no/such/cache"))
    []
    """
    infos = (_entry_info(cache / name) for name in _folders(cache))
    return [info for info in infos if info is not None]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Result of verifying every byte.

    Attributes:
        n_good: Number of shards with the right checksum.
        n_missing: Number of shards that are not computed yet.
        altered: Shards that were truncated or altered. They are removed, and computed again when they are asked for.
    """

    n_good: int
    n_missing: int
    altered: tuple[Path, ...]


def verify(entries: Iterable[EntryInfo], *, log: Callable[[str], None] = lambda line: None) -> Verification:
    """Compute the checksum of every shard and remove the shards whose bytes are wrong.

    Args:
        entries: The entries to verify.
        log: Called with one line for each entry.
    """
    n_good, n_missing, altered = 0, 0, []
    for entry in entries:
        states = [(files, files.state(every_byte=True)) for files in entry.shards]
        wrong = [files for files, state in states if state is State.ALTERED]
        good = sum(state is State.GOOD for _, state in states)
        for files in wrong:
            files.remove()
        n_good, n_missing = n_good + good, n_missing + len(states) - good - len(wrong)
        altered += [files.arrow for files in wrong]
        log(f"{entry.path.name}: {good} shards good, {len(wrong)} altered and removed, of {len(states)}")
    return Verification(n_good=n_good, n_missing=n_missing, altered=tuple(altered))


def select(
    entries: Iterable[EntryInfo],
    *,
    names: tuple[str, ...] = (),
    older_than_days: float | None = None,
    unfinished: bool = False,
    broken: bool = False,
) -> list[EntryInfo]:
    """Select the entries for which every given condition holds.

    Args:
        entries: The entries to select from.
        names: Words of which at least one is in the folder's name, the label or the model.
        older_than_days: Only entries that have not changed for that long.
        unfinished: Only entries with a missing shard.
        broken: Only entries that cannot be read.

    Raises:
        CacheError: No condition is given; everything must not be removed by accident.
    """
    if not names and older_than_days is None and not unfinished and not broken:
        raise CacheError(
            "nothing says which entries to remove; give words of a folder's name, label or model, --older-than DAYS, "
            "--unfinished, --broken or --all"
        )
    now = time.time()
    return [
        entry
        for entry in entries
        if (not names or any(name in entry.words() for name in names))
        and (older_than_days is None or now - entry.changed > older_than_days * _DAY_S)
        and (not unfinished or not entry.is_whole)
        and (not broken or entry.plan is None)
    ]


def remove(entry: EntryInfo) -> int:
    """Remove an entry and return the number of freed bytes.

    Raises:
        CacheError: A process is filling it.
    """
    watch = Watch()
    busy = [path for path in entry.path.glob("*.lock") if not watch.is_stale(path)]
    if busy:
        raise CacheError(
            f"{entry.path.name} is being filled by the holder of {busy[0]}; stop that process first, or remove the lock"
        )
    for files in entry.shards:
        files.record.unlink(missing_ok=True)  # a shard without its record is never taken for good
    shutil.rmtree(entry.path)
    if not list_entries(entry.path.parent):
        shutil.rmtree(entry.path.parent / PROBES, ignore_errors=True)
    return entry.size_bytes


def _folders(cache: Path) -> list[str]:
    """Return the names of the folders of a cache, sorted; none if there is no cache."""
    if not cache.is_dir():
        return []
    with os.scandir(cache) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _is_entry(names: Collection[str]) -> bool:
    return ABOUT in names or any(map(_ARROW.fullmatch, names))


def _plan_of(path: Path) -> ShardPlan | None:
    try:
        return read_plan(path)
    except CacheError:
        return None


def _entry_info(path: Path) -> EntryInfo | None:
    """Look at every file of a folder once; return None if it is no entry."""
    names: list[str] = []
    size_bytes, changed = 0, 0.0
    left = [str(path)]
    while left:
        folder = left.pop()
        with contextlib.suppress(FileNotFoundError):  # a process may finish its work, and remove its folder
            there, folders, n_bytes, latest = _look(folder)
            names = there if folder == str(path) else names
            size_bytes, changed = size_bytes + n_bytes, max(changed, latest)
            left += [f"{folder}/{name}" for name in folders]
    if not _is_entry(names):
        return None
    return EntryInfo(
        path=path,
        plan=_plan_of(path),
        n_finished=sum(1 for name in names if _is_record(name)),
        size_bytes=size_bytes,
        changed=changed,
    )


def _look(folder: str) -> tuple[list[str], list[str], int, float]:
    """Return the names of the files and of the folders in a folder, the size of its files, and the latest change.

    The folder is opened, so that the system does not walk its path again for each of many thousands of files.
    """
    names: list[str] = []
    folders: list[str] = []
    size_bytes, changed = 0, 0.0
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with os.scandir(descriptor) as files:
            for file in files:
                if file.is_dir(follow_symlinks=False):
                    folders.append(file.name)
                    continue
                try:
                    stat = file.stat()
                except FileNotFoundError:
                    continue
                names.append(file.name)
                size_bytes += stat.st_size
                if stat.st_mtime > changed:
                    changed = stat.st_mtime
    finally:
        os.close(descriptor)
    return names, folders, size_bytes, changed


def _is_record(name: str) -> bool:
    return name.startswith("shard-") and name.endswith(".json")
