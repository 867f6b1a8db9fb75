"""``bend-hf embed``: makes the embeddings of a task ahead of training, on any number of processes or jobs.

bend-hf embed --task gene_finding --model dnabert2
accelerate launch -m bend_hf embed --task gene_finding --model dnabert2
bend-hf embed --task gene_finding --model dnabert2 --splits train --shards 10-19
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bend_hf.cli import Command
from bend_hf.config import ModelConfig, add_flags, flag
from bend_hf.errors import ConfigError
from bend_hf.types import StoredDtype

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.data.dataset import TaskData
    from bend_hf.embedders.cache.open import CacheEntry, RankSlice

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(ModelConfig):
    """What to embed, with what, and where to.

    Raises:
        ConfigError: A range of shards is none.
    """

    splits: tuple[str, ...] = flag((), "splits, or parts of folds, to embed; default: all")
    shards: tuple[str, ...] = flag((), "shards to make, as 3 or 10-19; default: all")
    cache_dtype: StoredDtype = flag("float16", "how embeddings are stored")
    cache: Path | None = flag(None, "folder of the cache; default: embeddings below $BEND_HF_CACHE")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_shards(self.shards)


def parse_shards(words: tuple[str, ...]) -> list[int] | None:
    """The numbers that words such as ``3`` and ``10-19`` mean, both ends included; None for no words.

    >>> parse_shards(("3", "10-12"))
    [3, 10, 11, 12]

    Raises:
        ConfigError: A word means nothing.
    """
    numbers: set[int] = set()
    for word in words:
        first, dash, last = word.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            raise ConfigError(f"--shards {word!r} is no shard and no range of shards; give 3, or 10-19")
        numbers.update(range(int(first), int(last or first) + 1))
    return sorted(numbers) if words else None


def embed(config: EmbedConfig) -> list[str]:
    """Makes what is asked for; returns a line for each split, on the main process.

    Raises:
        BendError: An input is bad, or the disk too small.
    """
    from accelerate import Accelerator

    from bend_hf.data.dataset import open_task
    from bend_hf.data.sources import sources_of
    from bend_hf.embedders.cache import default_folder
    from bend_hf.embedders.cache.open import RankSlice, find_entry, worth_caching
    from bend_hf.embedders.from_config import open_model

    opened = []
    for source, message in sources_of(config):
        log.info(message)
        opened.append(open_task(source, config))
    chosen = [(data, name, part) for data in opened for name, part in _chosen(data, config.splits)]
    share = RankSlice.of(Accelerator())
    embedder = open_model(config)
    if not worth_caching(embedder):
        raise ConfigError(f"{config.model} costs nothing to compute and is never cached; train with it as it is")
    folder = config.cache or default_folder()
    lines = []
    for data, name, part in chosen:
        entry = find_entry(part, embedder, folder=folder, dtype=config.cache_dtype, label=f"{data.task.key} {name}")
        lines.append(_make(entry, config, share))
    return lines if share.rank == 0 else []


def _make(entry: CacheEntry, config: EmbedConfig, share: RankSlice) -> str:
    wanted, plan = parse_shards(config.shards), entry.plan
    if wanted is not None:
        wanted = [number for number in wanted if number < plan.n_shards]  # splits have different numbers of shards
        if not wanted:
            log.warning("%s has shards 0 to %d, none of them in --shards", plan.label, plan.n_shards - 1)
    n_made = entry.make(wanted, share, progress=True)
    finished = sum(files.record.exists() for files in entry.shards)
    size = sum(files.arrow.stat().st_size for files in entry.shards if files.record.exists())
    asked = plan.n_shards if wanted is None else len(wanted)
    return (
        f"{plan.label}: {n_made} of {asked} shards made, {finished} of {plan.n_shards} there, {size / 1e9:.3f} GB, "
        f"{entry.folder}"
    )


def _chosen(data: TaskData, splits: tuple[str, ...]) -> list[tuple[str, Dataset]]:
    unknown = sorted(set(splits) - set(data.parts))
    if unknown:
        raise ConfigError(f"{data.task.key} has no split {unknown[0]!r}; it has {', '.join(data.parts)}")
    return [(name, part) for name, part in data.parts.items() if not splits or name in splits]


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add_flags(parser, EmbedConfig)


def _run(parsed: argparse.Namespace) -> int:
    names = {item.name for item in fields(EmbedConfig)}
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(parsed).items()
        if name in names
    }
    for line in embed(EmbedConfig(**given)):
        print(line)
    return 0


COMMANDS = (
    Command(
        key="embed",
        text="make the embeddings of a task ahead of training, in shards that any number of processes share",
        add_flags=_add_flags,
        run=_run,
    ),
)
