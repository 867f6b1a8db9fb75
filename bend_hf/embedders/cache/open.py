"""Opens the embeddings of a dataset: finds their entry in the cache, makes what is missing, reads the rest.

>>> from bend_hf.embedders import OneHotEmbedder
>>> worth_caching(OneHotEmbedder())
False
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bend_hf.embedders.cache.dtypes import check_dtype
from bend_hf.embedders.cache.estimate import Report, bar, forecast, sample_rows_per_bp
from bend_hf.embedders.cache.fill import fill, missing_shards
from bend_hf.embedders.cache.key import Content, content_of, key_of, key_parts
from bend_hf.embedders.cache.shards import (
    SHARD_BYTES,
    ShardFiles,
    ShardPlan,
    entry_folder,
    publish_plan,
    read_plan,
    row_bytes,
    shard_files,
    shard_starts,
    tidy,
)
from bend_hf.embedders.cache.writer import ShardWriter, TokenColumns, stored_features
from bend_hf.errors import CacheError
from bend_hf.types import StoredDtype

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders.token_embeddings import EmbeddingSource

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RankSlice:
    """Which process of how many this is."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of(cls, accelerator: Accelerator | None) -> RankSlice:
        """This process of a launched run; the only one without an accelerator."""
        if accelerator is None:
            return cls()
        return cls(rank=accelerator.process_index, world=accelerator.num_processes)


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """The embeddings of one dataset by one embedder, found in the cache or planned.

    Attributes:
        folder: Where they lie.
        plan: How they are cut.
        dataset: What is embedded.
        content: Its checksum and lengths.
        embedder: What embeds it.
    """

    folder: Path
    plan: ShardPlan
    dataset: Dataset
    content: Content
    embedder: Embedder

    @property
    def shards(self) -> list[ShardFiles]:
        """All of them, made or not."""
        return shard_files(self.folder, self.plan.n_shards)

    def make(
        self, wanted: Sequence[int] | None, share: RankSlice, *, progress: bool, report: Report | None = None
    ) -> int:
        """Makes what is missing of the wanted shards.

        Args:
            wanted: Numbers of shards; None: all.
            share: Which process of how many this is.
            progress: Show a bar on the main process.
            report: Told how far it is, instead of the bar.

        Returns:
            How many were missing.

        Raises:
            CacheError: The disk cannot hold them, or the embedder gave what cannot be stored.
        """
        shards = self.shards if wanted is None else [self.shards[number] for number in wanted]
        missing = missing_shards(shards)
        if not missing:
            return 0
        stored_features(self.dataset.features, self.plan.width, self.plan.dtype)
        n_bp = sum(self._nucleotides(files) for files in missing)
        coming = forecast(
            self.folder,
            self.embedder,
            self.dataset,
            n_bytes=self.plan.forecast_bytes(n_bp),
            nucleotides=n_bp,
            world=share.world,
        )
        coming.check(self.folder)
        title = self.plan.label or self.folder.name
        if share.rank == 0:
            log.info(
                "%s: embedding %s nt in %d of %d shards, %s",
                title,
                f"{n_bp:,}",
                len(missing),
                len(shards),
                coming.text(),
            )
        with self.embedder.runner().fixed(), bar(title, shown=progress and share.rank == 0) as shown:
            fill(
                ShardWriter(plan=self.plan, dataset=self.dataset, lengths_bp=self.content.lengths_bp),
                TokenColumns(self.embedder, self.plan.dtype, self.plan.rows_per_bp),
                shards,
                rank=share.rank,
                world=share.world,
                report=report or shown,
            )
        return len(missing)

    def _nucleotides(self, files: ShardFiles) -> int:
        starts = self.plan.shard_starts
        return int(self.content.lengths_bp[starts[files.number] : starts[files.number + 1]].sum())


def worth_caching(embedder: Embedder) -> bool:
    """Whether rows cost more to make than to read: of one-hot letters nothing is kept."""
    from bend_hf.embedders.onehot import OneHotEmbedder

    return not isinstance(embedder, OneHotEmbedder)


def find_entry(
    dataset: Dataset,
    embedder: Embedder,
    *,
    folder: Path,
    dtype: StoredDtype,
    label: str = "",
    shard_bytes: int = SHARD_BYTES,
) -> CacheEntry:
    """The entry of a dataset, planned now where it is new; nothing is embedded.

    Args:
        dataset: With a ``sequence`` column.
        embedder: What embeds it.
        folder: The cache.
        dtype: How rows are stored.
        label: What the data are called.
        shard_bytes: Bytes of a shard, about; for a new entry.

    Raises:
        CacheError: The dataset is empty or has no sequences, or the folder cannot be written.
    """
    check_dtype(dtype)
    content = content_of(dataset)
    if not len(content.lengths_bp):
        raise CacheError(
            f"there is no sequence to embed in {label or 'the dataset'}; check the split column of the bed"
        )
    key = key_of(content.digest, embedder, dtype)
    model = embedder.spec.key if embedder.spec is not None else embedder.name
    place = entry_folder(folder, model, dtype, key)
    plan = read_plan(place)
    if plan is not None:
        tidy(place)
    else:
        rows_per_bp = sample_rows_per_bp(embedder, dataset, content.lengths_bp)
        shard_bp = int(shard_bytes / (rows_per_bp * row_bytes(embedder.width, dtype)))
        new = ShardPlan(
            key=key,
            parts=key_parts(content.digest, embedder, dtype),
            label=label,
            model=model,
            dtype=dtype,
            width=embedder.width,
            items=len(content.lengths_bp),
            nucleotides=int(content.lengths_bp.sum()),
            shard_starts=tuple(shard_starts(content.lengths_bp, shard_bp=shard_bp).tolist()),
            rows_per_bp=rows_per_bp,
        )
        try:
            plan = publish_plan(place, new)
        except OSError as error:
            raise CacheError(
                f"the cache {folder} cannot be written ({error}); give another folder, or --no-cache"
            ) from error
    return CacheEntry(folder=place, plan=plan, dataset=dataset, content=content, embedder=embedder)


def open_embeddings(
    dataset: Dataset | Sequence[Dataset],
    embedder: Embedder,
    *,
    folder: Path,
    dtype: StoredDtype,
    no_cache: bool,
    accelerator: Accelerator | None,
    label: str,
    progress: bool,
) -> EmbeddingSource:
    """See ``bend_hf.embedders.cache.open_embeddings``."""
    import datasets

    from bend_hf.embedders.cache.reader import CachedEmbeddings
    from bend_hf.embedders.token_embeddings import OnTheFly

    check_dtype(dtype)
    parts = [dataset] if isinstance(dataset, datasets.Dataset) else list(dataset)
    if not parts:
        raise CacheError("there is no dataset to embed; give one, or a sequence of them")
    if no_cache or not worth_caching(embedder):
        return OnTheFly(parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts), embedder)
    entries = [find_entry(part, embedder, folder=Path(folder), dtype=dtype, label=label) for part in parts]
    for entry in entries:
        entry.make(None, RankSlice.of(accelerator), progress=progress)
    return CachedEmbeddings.of([files for entry in entries for files in entry.shards], dtype=dtype)
