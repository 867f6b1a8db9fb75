"""What lies in a cache: a list with sizes, a check of every byte, and what may go.

>>> [held.path.name for held in inventory(Path("no/such/cache"))]
[]
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bend_hf.embedders.cache.shards import ABOUT, ShardFiles, ShardPlan, State, read_plan, shard_files
from bend_hf.errors import CacheError
from bend_hf.lease import Watch

_DAY_S: Final = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Held:
    """One entry of a cache.

    Attributes:
        path: Its folder.
        plan: What it is; None where that cannot be read.
        n_finished: Shards that are there, by their records.
        size_bytes: Of all its files.
        changed: When a file in it last changed, seconds since 1970.
    """

    path: Path
    plan: ShardPlan | None
    n_finished: int
    size_bytes: int
    changed: float

    @property
    def shards(self) -> list[ShardFiles]:
        """Its shards, made or not."""
        return shard_files(self.path, self.plan.n_shards) if self.plan is not None else []

    @property
    def is_whole(self) -> bool:
        """Whether each shard is finished."""
        return self.plan is not None and self.n_finished == self.plan.n_shards

    def text(self) -> str:
        """One line for a list."""
        size = f"{self.size_bytes / 1e9:10.3f} GB"
        if self.plan is None:
            return f"{size}  {self.path.name}  cannot be read; 'bend-hf cache prune --broken' removes it"
        plan = self.plan
        state = "whole" if self.is_whole else f"{self.n_finished} of {plan.n_shards} shards"
        facts = f"{plan.model}, width {plan.width}, {plan.dtype}, {plan.items:,} items, {plan.nucleotides:,} nt"
        return f"{size}  {plan.label or '-'}: {facts}; {state}; {self.path.name}"


def inventory(cache: Path) -> list[Held]:
    """The entries of a cache, by name."""
    if not cache.is_dir():
        return []
    return [_held(path) for path in sorted(cache.iterdir()) if path.is_dir() and _is_entry(path)]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What a check of every byte found.

    Attributes:
        n_good: Shards whose checksum is right.
        n_missing: Shards that are not there yet.
        altered: Shards that were cut or altered; they are removed, and made again when they are asked for.
    """

    n_good: int
    n_missing: int
    altered: tuple[Path, ...]


def verify(held: Iterable[Held], *, say: Callable[[str], None] = lambda line: None) -> Verified:
    """Takes the checksum of every shard and removes those whose bytes are wrong.

    Args:
        held: Which entries.
        say: Told each entry's result.
    """
    good, missing, altered = 0, 0, []
    for entry in held:
        states = [(files, files.state(every_byte=True)) for files in entry.shards]
        wrong = [files for files, state in states if state is State.ALTERED]
        n_good = sum(state is State.GOOD for _, state in states)
        for files in wrong:
            files.remove()
        good, missing = good + n_good, missing + len(states) - n_good - len(wrong)
        altered += [files.arrow for files in wrong]
        say(f"{entry.path.name}: {n_good} shards good, {len(wrong)} altered and removed, of {len(states)}")
    return Verified(n_good=good, n_missing=missing, altered=tuple(altered))


def choose(
    held: Iterable[Held],
    *,
    names: tuple[str, ...] = (),
    older_than_days: float | None = None,
    unfinished: bool = False,
    broken: bool = False,
) -> list[Held]:
    """Entries that may be removed: those of which everything that is asked for is true.

    Args:
        held: Of these.
        names: Words that stand in the folder's name, the label or the model; any of them.
        older_than_days: Not changed for so long.
        unfinished: Only those with a shard missing.
        broken: Only those that cannot be read.

    Raises:
        CacheError: Nothing was asked for; everything is not removed by accident.
    """
    if not names and older_than_days is None and not unfinished and not broken:
        raise CacheError(
            "say what is to be removed: words of a folder's name, label or model, --older-than DAYS, --unfinished, "
            "--broken or --all"
        )
    now = time.time()
    return [
        entry
        for entry in held
        if (not names or any(name in _words(entry) for name in names))
        and (older_than_days is None or now - entry.changed > older_than_days * _DAY_S)
        and (not unfinished or not entry.is_whole)
        and (not broken or entry.plan is None)
    ]


def remove(entry: Held) -> int:
    """Removes an entry; returns the bytes that were freed.

    Raises:
        CacheError: Somebody is making it.
    """
    watch = Watch()
    busy = [path for path in entry.path.glob("*.lock") if not watch.is_stale(path)]
    if busy:
        raise CacheError(f"{busy[0]} says that somebody makes {entry.path.name}; stop that first, or remove the lock")
    for files in entry.shards:
        files.record.unlink(missing_ok=True)  # a shard without its record is never believed
    shutil.rmtree(entry.path)
    return entry.size_bytes


def _words(entry: Held) -> str:
    plan = entry.plan
    return entry.path.name if plan is None else f"{entry.path.name} {plan.label} {plan.model}"


def _is_entry(path: Path) -> bool:
    return (path / ABOUT).is_file() or any(path.glob("shard-*-of-*.arrow"))


def _held(path: Path) -> Held:
    try:
        plan = read_plan(path)
    except CacheError:
        plan = None
    stats = [file.stat() for file in sorted(path.rglob("*")) if file.is_file()]
    return Held(
        path=path,
        plan=plan,
        n_finished=sum(1 for _ in path.glob("shard-*-of-*.json")),
        size_bytes=sum(stat.st_size for stat in stats),
        changed=max((stat.st_mtime for stat in stats), default=0.0),
    )
