"""Embed the sequences of tasks before training, in shards that any number of processes or jobs share.

Training finds the embeddings in the cache and computes only what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.config import ModelConfig, flag
from bend_hf.errors import ConfigError, did_you_mean
from bend_hf.runs.flag_effects import check_model_flags
from bend_hf.types import StoredDtype

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.embedders.cache.fill import RankSlice
    from bend_hf.embedders.cache.open import CacheEntry
    from bend_hf.tasks import TaskSpec

log = logging.getLogger(__name__)

_MB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(ModelConfig):
    """The model, the tasks, and the splits and shards to embed.

    Raises:
        ConfigError: A range or a share of shards is malformed, or their size is not positive.
    """

    splits: tuple[str, ...] = flag((), "splits, or subsets of folds, to embed; default: all", group="data")
    shard_mb: int = flag(512, "wanted megabytes of a shard of new embeddings", "speed", group="output")
    shards: tuple[str, ...] = flag((), "shards to compute, such as 3 or 10-19; default: all", group="data")
    shard: str | None = flag(
        None,
        "share I of N, with I from 0 to N-1: start with these shards and then help others; in a folder that cannot "
        "hold leases, compute only these",
        "speed",
        group="data",
    )
    no_leases: bool = flag(
        False,
        "take no leases in the cache folder, so that the share of --shard is all that is computed",
        "speed",
        group="data",
    )
    cache_dtype: StoredDtype = flag("float16", "dtype of the stored embeddings", group="output")
    cache: Path | None = flag(None, "cache folder; default: embeddings in $BEND_HF_CACHE", group="output")

    def __post_init__(self) -> None:
        super().__post_init__()
        splits = tuple("validation" if name == "valid" else name for name in self.splits)  # as BEND calls it
        object.__setattr__(self, "splits", splits)
        parse_shards(self.shards)
        parse_share(self.shard)
        if self.shard_mb < 1:
            raise ConfigError(f"--shard-mb is {self.shard_mb}; it must be 1 or more")

    @property
    def shard_bytes(self) -> int:
        """Wanted size of a shard in bytes."""
        return self.shard_mb * _MB


def parse_shards(words: tuple[str, ...]) -> list[int] | None:
    """Parse numbers of shards and ranges of them, both ends included; None without words.

    >>> parse_shards(("3", "10-12"))
    [3, 10, 11, 12]

    Raises:
        ConfigError: A word is neither a number nor a range.
    """
    numbers: set[int] = set()
    for word in words:
        first, dash, last = word.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            raise ConfigError(f"--shards {word!r}; expected the number of a shard or a range, such as 3 or 10-19")
        numbers.update(range(int(first), int(last or first) + 1))
    return sorted(numbers) if words else None


def parse_share(text: str | None) -> tuple[int, int]:
    """Parse a share: its number and how many there are; the only one of one without a text.

    >>> parse_share("3/8")
    (3, 8)

    Raises:
        ConfigError: It is not I/N with I from 0 to N-1.
    """
    first, slash, n = (text or "0/1").partition("/")
    if not slash or not (first + n).isdecimal() or not first or not n or int(first) >= int(n):
        raise ConfigError(f"--shard is {text!r}; expected I/N with I from 0 to N-1, such as 0/8 for the first of 8")
    return int(first), int(n)


@dataclass(frozen=True, kw_only=True)
class EmbeddedSplit:
    """What became of one split.

    Attributes:
        label: Task and split.
        n_computed: Shards that were computed now.
        n_asked: Shards that were asked for.
        n_finished: Shards that are in the cache.
        n_shards: All shards of the split.
        n_bytes: Size of the finished ones.
        folder: The cache entry.
    """

    label: str
    n_computed: int
    n_asked: int
    n_finished: int
    n_shards: int
    n_bytes: int
    folder: Path

    def __str__(self) -> str:
        return (
            f"{self.label}: {self.n_computed} of {self.n_asked} shards computed, {self.n_finished} of {self.n_shards} "
            f"finished, {self.n_bytes / 1e9:.3f} GB, {self.folder}"
        )


def embed(config: EmbedConfig, models: Sequence[str] = ()) -> list[EmbeddedSplit]:
    """Compute the embeddings that are missing in the cache.

    Args:
        config: The tasks, the splits and how they are embedded.
        models: Several models, one after the other; by default that of the configuration.

    Returns:
        On the main process one entry per model and split; on other processes nothing.

    Raises:
        BendError: An input is invalid, or the disk is too small.
    """
    from accelerate import Accelerator

    from bend_hf.embedders.cache.fill import RankSlice

    named = [replace(config, model=model) for model in models] or [config]
    check_model_flags(config, named)
    chosen = _chosen(_opened(config), config.splits)
    launched = RankSlice.of(Accelerator())
    number, n = parse_share(config.shard)
    rank_slice = RankSlice(
        rank=number * launched.n_processes + launched.rank,
        n_processes=n * launched.n_processes,
        leases=not config.no_leases,
        waits=config.shard is None,
        is_main=launched.is_main,
    )
    found = [one for each in named for one in _embed_with(each, chosen, rank_slice)]
    return found if launched.is_main else []


def _embed_with(
    config: EmbedConfig, chosen: Sequence[tuple[str, Dataset]], rank_slice: RankSlice
) -> Iterator[EmbeddedSplit]:
    """Embed the chosen splits with one model: first what is free in any of them, then what others still hold."""
    from bend_hf.embedders.cache.fill import why_static
    from bend_hf.embedders.cache.open import CacheSettings, find_entry, worth_caching
    from bend_hf.embedders.from_config import open_model

    embedder = open_model(config, lazy=True)
    if not worth_caching(embedder):
        raise ConfigError(
            f"{config.model} is never cached, because it costs nothing to compute; train with it directly"
        )
    settings = CacheSettings(folder=config.cache, dtype=config.cache_dtype, shard_bytes=config.shard_bytes)
    entries = [find_entry(split, embedder, settings, label=label) for label, split in chosen]
    n_missing = [_fill_chosen(entry, config, replace(rank_slice, waits=False)) for entry in entries]
    for entry, n_computed in zip(entries, n_missing, strict=True):
        if rank_slice.waits or why_static(entry.folder, rank_slice) is None:
            _fill_chosen(entry, config, replace(rank_slice, waits=True))  # shards of others, or of those that died
        yield _embedded_split(entry, config, n_computed)


def _opened(config: EmbedConfig) -> dict[str, Mapping[str, Dataset]]:
    """Open the splits of each task that embeds, by its key."""
    from bend_hf.data.dataset import task_openers
    from bend_hf.data.plain_bed import plain_bed, plain_datasets

    table = plain_bed(config)
    if table is not None:
        return {table.path.name.partition(".")[0]: plain_datasets(config, table)}
    opened = [open_one() for open_one in task_openers(config).values()]
    embedded = tasks_with_embeddings([data.task for data in opened])
    return {data.task.key: data.subsets for data in opened if data.task in embedded}


def tasks_with_embeddings(tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
    """Return the tasks whose embeddings are cached; the log names the others.

    Raises:
        ConfigError: No task has embeddings.
    """
    found = [task for task in tasks if task.head is not None]
    others = [task.key for task in tasks if task.head is None]
    if others and not found:
        raise ConfigError(f"{others[0]} is scored without training and caches no embeddings; run 'bend-hf train' on it")
    for key in others:
        log.info("%s is left out: it is scored without training and caches no embeddings", key)
    return found


def check_splits(known: Mapping[str, Collection[str]], splits: Collection[str]) -> None:
    """Check that each split that is to be embedded is one of a task.

    Args:
        known: The splits of each task, by its key.
        splits: The splits that were asked for.

    Raises:
        ConfigError: One is of no task; the message names the nearest.
    """
    every = list(dict.fromkeys(name for names in known.values() for name in names))
    for split in splits:
        if split not in every:
            raise ConfigError(f"{' and '.join(known)} has no split {split!r}; {did_you_mean(split, every)}")
        for key, names in known.items():
            if split not in names:
                log.info("%s has no split %r; none of it is embedded", key, split)


def _chosen(opened: Mapping[str, Mapping[str, Dataset]], splits: tuple[str, ...]) -> list[tuple[str, Dataset]]:
    check_splits(opened, splits)
    return [
        (f"{key} {name}", split)
        for key, subsets in opened.items()
        for name, split in subsets.items()
        if not splits or name in splits
    ]


def _wanted_shards(entry: CacheEntry, config: EmbedConfig) -> list[int] | None:
    """Return the shards of a split that ``--shards`` names; None for all. Splits have different numbers of shards."""
    wanted = parse_shards(config.shards)
    return None if wanted is None else [number for number in wanted if number < entry.plan.n_shards]


def _fill_chosen(entry: CacheEntry, config: EmbedConfig, rank_slice: RankSlice) -> int:
    """Fill the wanted shards of a split; return how many were missing."""
    wanted, plan = _wanted_shards(entry, config), entry.plan
    if wanted == [] and not rank_slice.waits:
        log.warning("%s has shards 0 to %d; --shards names none of them", plan.label, plan.n_shards - 1)
    return entry.fill(wanted, here=rank_slice)


def _embedded_split(entry: CacheEntry, config: EmbedConfig, n_computed: int) -> EmbeddedSplit:
    wanted, plan = _wanted_shards(entry, config), entry.plan
    finished = [files for files in entry.shards if files.record.exists()]
    return EmbeddedSplit(
        label=plan.label,
        n_computed=n_computed,
        n_asked=plan.n_shards if wanted is None else len(wanted),
        n_finished=len(finished),
        n_shards=plan.n_shards,
        n_bytes=sum(files.arrow.stat().st_size for files in finished),
        folder=entry.folder,
    )
