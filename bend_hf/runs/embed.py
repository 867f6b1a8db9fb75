"""Embed the sequences of tasks before training, in shards that any number of processes or jobs share.

Training finds the embeddings in the cache and computes only what is missing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bend_hf.config import ModelConfig, flag
from bend_hf.errors import ConfigError
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

    splits: tuple[str, ...] = flag((), "splits, or subsets of folds, to embed; default: all")
    shards: tuple[str, ...] = flag((), "shards to compute, such as 3 or 10-19; default: all")
    cache_dtype: StoredDtype = flag("float16", "dtype of the stored embeddings")
    cache: Path | None = flag(None, "cache folder; default: embeddings in $BEND_HF_CACHE")

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


def embed(config: EmbedConfig) -> list[str]:
    """Compute the embeddings that are missing in the cache.

    Returns:
        On the main process one line per split; on other processes nothing.

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
    embedder = open_model(config)
    if not worth_caching(embedder):
        raise ConfigError(
            f"{config.model} is never cached, because it costs nothing to compute; train with it directly"
        )
    settings = CacheSettings(folder=config.cache, dtype=config.cache_dtype)
    lines = []
    for data, name, split in chosen:
        label = f"{data.task.key} {name}"
        entry = find_entry(split, embedder, settings, label=label)
        lines.append(_embed_split(entry, config, rank_slice))
    return lines if rank_slice.rank == 0 else []


def _chosen(data: TaskData, splits: tuple[str, ...]) -> list[tuple[str, Dataset]]:
    unknown = sorted(set(splits) - set(data.subsets))
    if unknown:
        raise ConfigError(f"{data.task.key} has no split {unknown[0]!r}; expected one of {', '.join(data.subsets)}")
    return [(name, split) for name, split in data.subsets.items() if not splits or name in splits]


def _embed_split(entry: CacheEntry, config: EmbedConfig, rank_slice: RankSlice) -> str:
    wanted, plan = parse_shards(config.shards), entry.plan
    if wanted is not None:
        wanted = [number for number in wanted if number < plan.n_shards]  # splits have different numbers of shards
        if not wanted:
            log.warning("%s has shards 0 to %d; --shards names none of them", plan.label, plan.n_shards - 1)
    n_computed = entry.fill(wanted, here=rank_slice)
    finished = [files for files in entry.shards if files.record.exists()]
    size = sum(files.arrow.stat().st_size for files in finished)
    n_asked = plan.n_shards if wanted is None else len(wanted)
    return (
        f"{plan.label}: {n_computed} of {n_asked} shards computed, {len(finished)} of {plan.n_shards} finished, "
        f"{size / 1e9:.3f} GB, {entry.folder}"
    )
