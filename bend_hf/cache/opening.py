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

from bend_hf.cache.content import Content, content_of
from bend_hf.cache.errors import CacheError
from bend_hf.cache.filling import fill, missing_shards
from bend_hf.cache.forecast import forecast, sample_rows_per_bp
from bend_hf.cache.key import key_of, key_parts
from bend_hf.cache.numbers import StoredDtype, check_dtype
from bend_hf.cache.plan import (
    SHARD_BYTES,
    Plan,
    entry_folder,
    publish_plan,
    read_plan,
    row_bytes,
    shard_files,
    shard_starts,
)
from bend_hf.cache.progress import Report, bar
from bend_hf.cache.shard import ShardFiles
from bend_hf.cache.writer import ShardWriter, TokenColumns, stored_features

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

    from bend_hf.batches import EmbeddingSource
    from bend_hf.embedders._base import Embedder

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which process of how many this is."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of(cls, accelerator: Accelerator | None) -> Share:
        """This process of a launched run; the only one without an accelerator."""
        if accelerator is None:
            return cls()
        return cls(rank=accelerator.process_index, world=accelerator.num_processes)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The embeddings of one dataset by one embedder, found in the cache or planned.

    Attributes:
        folder: Where they lie.
        plan: How they are cut.
        dataset: What is embedded.
        content: Its checksum and lengths.
        embedder: What embeds it.
    """

    folder: Path
    plan: Plan
    dataset: Dataset
    content: Content
    embedder: Embedder

    @property
    def shards(self) -> list[ShardFiles]:
        """All of them, made or not."""
        return shard_files(self.folder, self.plan.n_shards)

    def make(self, wanted: Sequence[int] | None, share: Share, *, progress: bool, report: Report | None = None) -> int:
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
                "%s: embedding %s nt in %d of %d shards, %s", title, f"{n_bp:,}", len(missing), len(shards), coming.text()
            )
        with fixed_batches(self.embedder, self.plan.batch_tokens), bar(title, shown=progress and share.rank == 0) as shown:
            writer = ShardWriter(
                plan=self.plan,
                dataset=self.dataset,
                lengths_bp=self.content.lengths_bp,
                columns=TokenColumns(self.embedder, self.plan.dtype),
            )
            fill(writer, shards, rank=share.rank, world=share.world, report=report or shown)
        return len(missing)

    def _nucleotides(self, files: ShardFiles) -> int:
        starts = self.plan.shard_starts
        return int(self.content.lengths_bp[starts[files.number] : starts[files.number + 1]].sum())
