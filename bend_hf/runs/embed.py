"""Embed the sequences of tasks before training, in shards that any number of processes or jobs share.

Training finds the embeddings in the cache and computes only what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bend_hf.config import ModelConfig, flag
from bend_hf.errors import ConfigError, did_you_mean
from bend_hf.runs.flag_effects import check_model_flags
from bend_hf.types import StoredDtype

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.data.dataset import TaskData
    from bend_hf.embedders.cache.fill import RankSlice
    from bend_hf.embedders.cache.open import CacheEntry

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(ModelConfig):
    """The model, the tasks, and the splits and shards to embed.

    Raises:
        ConfigError: A range of shards is malformed.
    """

    splits: tuple[str, ...] = flag((), "splits, or subsets of folds, to embed; default: all", group="data")
    shards: tuple[str, ...] = flag((), "shards to compute, such as 3 or 10-19; default: all", group="data")
    cache_dtype: StoredDtype = flag("float16", "dtype of the stored embeddings", group="output")
    cache: Path | None = flag(None, "cache folder; default: embeddings in $BEND_HF_CACHE", group="output")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_shards(self.shards)


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


def embed(config: EmbedConfig) -> list[EmbeddedSplit]:
    """Compute the embeddings that are missing in the cache.

    Returns:
        On the main process one entry per split; on other processes nothing.

    Raises:
        BendError: An input is invalid, or the disk is too small.
    """
    from accelerate import Accelerator

    from bend_hf.data.dataset import task_openers
    from bend_hf.embedders.cache.fill import RankSlice
    from bend_hf.embedders.cache.open import CacheSettings, find_entry, worth_caching
    from bend_hf.embedders.from_config import open_model

    check_model_flags(config)
    opened = [open_one() for open_one in task_openers(config).values()]
    chosen = [(data, name, split) for data in opened for name, split in _chosen(data, config.splits)]
    rank_slice = RankSlice.of(Accelerator())
    embedder = open_model(config, lazy=True)
    if not worth_caching(embedder):
        raise ConfigError(
            f"{config.model} is never cached, because it costs nothing to compute; train with it directly"
        )
    settings = CacheSettings(folder=config.cache, dtype=config.cache_dtype)
    found = []
    for data, name, split in chosen:
        label = f"{data.task.key} {name}"
        entry = find_entry(split, embedder, settings, label=label)
        found.append(_embed_split(entry, config, rank_slice))
    return found if rank_slice.rank == 0 else []


def check_splits(task: str, known: Collection[str], splits: Collection[str]) -> None:
    """Check that a task has the splits that are to be embedded.

    Raises:
        ConfigError: It lacks one; the message names the nearest.
    """
    unknown = sorted(set(splits) - set(known))
    if unknown:
        raise ConfigError(f"{task} has no split {unknown[0]!r}; {did_you_mean(unknown[0], list(known))}")


def _chosen(data: TaskData, splits: tuple[str, ...]) -> list[tuple[str, Dataset]]:
    check_splits(data.task.key, data.subsets, splits)
    return [(name, split) for name, split in data.subsets.items() if not splits or name in splits]


def _embed_split(entry: CacheEntry, config: EmbedConfig, rank_slice: RankSlice) -> EmbeddedSplit:
    wanted, plan = parse_shards(config.shards), entry.plan
    if wanted is not None:
        wanted = [number for number in wanted if number < plan.n_shards]  # splits have different numbers of shards
        if not wanted:
            log.warning("%s has shards 0 to %d; --shards names none of them", plan.label, plan.n_shards - 1)
    n_computed = entry.fill(wanted, here=rank_slice)
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
