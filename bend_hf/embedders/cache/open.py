"""Open the embeddings of a dataset: find their cache entry, compute what is missing, read the rest.

>>> from bend_hf.embedders import OneHotEmbedder
>>> worth_caching(OneHotEmbedder())
False
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.embedders._probe import identity_in
from bend_hf.embedders.alignment_summary import alignment_of, sequences_sha256, some_sequences
from bend_hf.embedders.cache import default_folder
from bend_hf.embedders.cache.as_dataset import describe_dataset
from bend_hf.embedders.cache.dtypes import check_dtype
from bend_hf.embedders.cache.estimate import estimate_cost, estimate_embeddings_per_bp
from bend_hf.embedders.cache.fill import (
    OnProgress,
    RankSlice,
    fill,
    missing_shards,
    own_shards,
    sweep_finished,
    why_static,
)
from bend_hf.embedders.cache.key import Content, content_of, key_of, key_parts
from bend_hf.embedders.cache.pooling import PooledEmbeddings, Pooling
from bend_hf.embedders.cache.shards import (
    SHARD_BYTES,
    ShardFiles,
    ShardPlan,
    embedding_bytes,
    entry_folder,
    publish_plan,
    read_plan,
    remove_unpublished,
    shard_starts,
)
from bend_hf.embedders.cache.writer import ShardWriter, TokenColumns, stored_features
from bend_hf.errors import CacheError
from bend_hf.files import shows_progress
from bend_hf.types import Json, StoredDtype

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders.token_embeddings import EmbeddingSource

log = logging.getLogger(__name__)

_COMPUTES: Final = ("torch", "transformers")


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """Where and how embeddings are cached.

    Attributes:
        folder: The cache; None takes ``default_folder()``.
        dtype: How embeddings are stored and returned: ``float16``, ``float32``, or ``bfloat16``, which is stored as its
            16 bits and returned as float32.
        pool_bp: Store only the mean over each window of this many nucleotides, in float32, which is all that a linear
            head reads; None stores token embeddings. Token embeddings that are cached already are read instead.
        no_cache: Compute embeddings each time they are asked for, if they are larger than the disk.
        shard_bytes: Wanted size of a shard of a new entry.
        show_progress: Show a progress bar on the main process.

    Raises:
        CacheError: ``dtype`` is unknown.
    """

    folder: Path | None = None
    dtype: StoredDtype = "float16"
    pool_bp: int | None = None
    no_cache: bool = False
    shard_bytes: int = SHARD_BYTES
    show_progress: bool = True

    def __post_init__(self) -> None:
        check_dtype(self.dtype)

    @property
    def pooling(self) -> Pooling | None:
        """How token embeddings are averaged; None if they are stored as they are."""
        return None if self.pool_bp is None else Pooling(pool_bp=self.pool_bp, rounded_to=self.dtype)

    @property
    def stored_dtype(self) -> StoredDtype:
        """The dtype of the numbers in the files."""
        return self.dtype if self.pool_bp is None else "float32"


def open_embeddings(
    dataset: Dataset | Sequence[Dataset],
    embedder: Embedder,
    settings: CacheSettings | None = None,
    *,
    accelerator: Accelerator | None = None,
    label: str = "",
) -> EmbeddingSource:
    """Open the embeddings of a split: read what is cached, and first compute what is missing.

    Every process of a run calls it. Each computes a share of the missing shards, and all return when none is missing.

    Args:
        dataset: The split, with a ``sequence`` column; or several datasets that are read as one but cached separately,
            such as the subsets that folds are made of, so that each is embedded once and not once per fold.
        embedder: Embeds the sequences. One-hot embeddings cost nothing and are never cached.
        settings: Where and how embeddings are cached.
        accelerator: The processes of the run; None if this is the only one.
        label: Name in ``bend-hf cache list``, for example ``gene_finding train``.

    Returns:
        The embeddings. ``x_BTD`` is float16 if that is stored; a head casts it on its device.

    Raises:
        CacheError: There is no dataset or no sequence, the disk cannot hold what is missing, or a number does not fit
            the dtype.
    """
    import datasets

    from bend_hf.embedders.cache.reader import CachedEmbeddings
    from bend_hf.embedders.token_embeddings import OnTheFly

    settings = settings or CacheSettings()
    subsets = [dataset] if isinstance(dataset, datasets.Dataset) else list(dataset)
    if not subsets:
        raise CacheError("there is no dataset to embed; give one or a sequence of them")
    if settings.no_cache or not worth_caching(embedder):
        return OnTheFly(subsets[0] if len(subsets) == 1 else datasets.concatenate_datasets(subsets), embedder)
    if settings.pooling is not None:
        unpooled = [_finished_shards(subset, embedder, replace(settings, pool_bp=None)) for subset in subsets]
        if all(unpooled):
            source = CachedEmbeddings.of([files for shards in unpooled for files in shards], dtype=settings.dtype)
            return PooledEmbeddings(source, settings.pooling)
    entries = [find_entry(subset, embedder, settings, label=label) for subset in subsets]
    for entry in entries:
        entry.fill(here=RankSlice.of(accelerator))
    return CachedEmbeddings.of([files for entry in entries for files in entry.shards], dtype=settings.stored_dtype)


def _finished_shards(dataset: Dataset, embedder: Embedder, settings: CacheSettings) -> list[ShardFiles]:
    """Return the shards of a dataset if all of them are cached, otherwise none; nothing is written."""
    folder, _, _ = _place(dataset, embedder, settings)
    plan = read_plan(folder)
    shards = [] if plan is None else ShardFiles.of_entry(folder, plan.n_shards)
    return [] if missing_shards(shards) else shards


def worth_caching(embedder: Embedder) -> bool:
    """Check whether embeddings cost more to compute than to read; one-hot embeddings do not."""
    from bend_hf.embedders.onehot import OneHotEmbedder

    return not isinstance(embedder, OneHotEmbedder)


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """The embeddings of one dataset by one embedder, cached or planned.

    Attributes:
        folder: The entry's folder.
        plan: How the dataset is cut into shards.
        dataset: What is embedded.
        content: Checksum and lengths of the dataset.
        embedder: Embeds the sequences.
        pooling: How token embeddings are averaged; None if they are stored as they are.
        show_progress: Show a progress bar on the main process.
    """

    folder: Path
    plan: ShardPlan
    dataset: Dataset
    content: Content
    embedder: Embedder
    pooling: Pooling | None = None
    show_progress: bool = True

    @property
    def shards(self) -> list[ShardFiles]:
        """All shards, finished or not."""
        return ShardFiles.of_entry(self.folder, self.plan.n_shards)

    def fill(
        self,
        numbers: Sequence[int] | None = None,
        *,
        here: RankSlice | None = None,
        on_progress: OnProgress | None = None,
    ) -> int:
        """Compute the shards that are missing.

        Args:
            numbers: Numbers of the wanted shards; None for all.
            here: Which of several processes this is.
            on_progress: Called with the embedded nucleotides and their total, instead of showing a bar.

        Returns:
            How many shards were missing.

        Raises:
            CacheError: The disk cannot hold the shards, or the embedder returned what cannot be stored.
        """
        here = here or RankSlice()
        shards = self.shards if numbers is None else [self.shards[number] for number in numbers]
        missing = missing_shards(shards)
        features = stored_features(self.dataset.features, self.plan.width, self.plan.dtype)  # raises before it embeds
        if not missing:
            sweep_finished(shards)
            describe_dataset(self.folder, self.plan, self.shards, features)
            return 0
        here, missing = self._divided(missing, here)
        if not missing and not here.waits:
            return 0
        self.embedder.load()
        writer = ShardWriter(plan=self.plan, dataset=self.dataset, lengths_bp=self.content.lengths_bp)
        n_bp = sum(writer.n_bp(files) for files in missing)
        cost = estimate_cost(
            self.folder,
            self.embedder,
            self.dataset,
            n_bytes=self.plan.estimate_bytes(n_bp),
            n_bp=n_bp,
            n_processes=here.n_processes if here.leases else 1,
        )
        cost.check(self.folder)
        title, is_main = self.plan.label or self.folder.name, here.is_main
        if is_main:
            counts = f"{n_bp:,} bp in {len(missing)} of {len(shards)} shards"
            log.info("%s: embedding %s, %s", title, counts, cost.text())
        columns = TokenColumns(self.embedder, self.plan.dtype, self.plan.rows_per_bp, self.pooling)
        shown = self.show_progress and is_main and on_progress is None
        with self.embedder.runner().fixed(), _bar(title, shown=shown) as bar:
            fill(writer, columns, shards, here, on_progress or bar)
        describe_dataset(self.folder, self.plan, self.shards, features)
        return len(missing)

    def _divided(self, missing: list[ShardFiles], here: RankSlice) -> tuple[RankSlice, list[ShardFiles]]:
        """Choose leases or static shares; return how this process works, and which of the missing shards are its."""
        reason = why_static(self.folder, here)
        if reason is None:
            return here, missing
        mine = own_shards(missing, here)
        advice = "" if here.n_processes > 1 else "; give each process its share with --shard I/N if there are several"
        log.warning(
            "%s: no leases (%s): this process computes the static share %d/%d, %d of %d missing shards%s",
            self.folder,
            reason,
            here.rank,
            here.n_processes,
            len(mine),
            len(missing),
            advice,
        )
        return replace(here, leases=False), mine


@contextmanager
def _bar(title: str, *, shown: bool) -> Iterator[OnProgress]:
    """Show a progress bar that counts nucleotides."""
    from tqdm.auto import tqdm

    with tqdm(
        desc=title, unit="bp", unit_scale=True, dynamic_ncols=True, disable=not (shown and shows_progress())
    ) as bar:

        def at(done_bp: int, total_bp: int) -> None:
            if bar.total is None:
                bar.initial = done_bp  # what was there before must not count toward the speed
            bar.total = total_bp
            bar.update(done_bp - bar.n)

        yield at


@functools.cache
def _libraries() -> dict[str, str]:
    return {name: version(name) for name in _COMPUTES}


def _warn_of_other_libraries(plan: ShardPlan) -> None:
    """Log which libraries had another version, up to the second number, when the embeddings were computed."""

    def short(text: str) -> list[str]:
        return text.split(".")[:2]

    others = [
        f"{name} {plan.libraries[name]} (now {now})"
        for name, now in _libraries().items()
        if name in plan.libraries and short(plan.libraries[name]) != short(now)
    ]
    if others:
        log.warning(
            "%s: the cached embeddings were computed with %s; if it changed what the model computes, remove them with "
            "'bend-hf cache prune %s'",
            plan.label or plan.model,
            " and ".join(others),
            plan.key,
        )


def _alignment(embedder: Embedder, dataset: Dataset) -> dict[str, dict[str, Json]]:
    sequences = some_sequences(dataset)
    return {sequences_sha256(sequences): alignment_of(embedder, sequences)}


def find_entry(
    dataset: Dataset,
    embedder: Embedder,
    settings: CacheSettings | None = None,
    *,
    label: str = "",
    like: CacheEntry | None = None,
) -> CacheEntry:
    """Find the cache entry of a dataset, or plan a new one; nothing is embedded.

    The model loads only for a new entry. An entry that is found tells it what it need not load to know.

    Args:
        dataset: With a ``sequence`` column.
        embedder: Embeds the sequences.
        settings: Where and how embeddings are cached.
        label: Name in ``bend-hf cache list``.
        like: The entry of another layer of the model for the same dataset, whose content and tokens are the same; None
            reads and tokenizes the dataset.

    Raises:
        CacheError: The dataset is empty or has no sequences, or the folder cannot be written.
    """
    settings = settings or CacheSettings()
    folder, parts, content = _place(dataset, embedder, settings, None if like is None else like.content)
    if not len(content.lengths_bp):
        raise CacheError(
            f"there is no sequence to embed in {label or 'the dataset'}; check the split column of the BED file"
        )
    plan = read_plan(folder)
    if plan is not None:
        remove_unpublished(folder)
        embedder.recall(plan.description, plan.alignment)
        _warn_of_other_libraries(plan)
    else:
        embedder.load()
        dtype = settings.stored_dtype
        per_bp = _rows_per_bp(embedder, dataset, content, settings) if like is None else like.plan.rows_per_bp
        shard_bp = int(settings.shard_bytes / (per_bp * embedding_bytes(embedder.width, dtype)))
        new = ShardPlan(
            key=key_of(parts),
            parts=parts,
            label=label,
            model=_model_of(embedder),
            dtype=dtype,
            width=embedder.width,
            items=len(content.lengths_bp),
            nucleotides=int(content.lengths_bp.sum()),
            shard_starts=tuple(shard_starts(content.lengths_bp, shard_bp=shard_bp).tolist()),
            rows_per_bp=per_bp,
            description=embedder.measured,
            alignment=_alignment(embedder, dataset) if like is None else like.plan.alignment,
            libraries=_libraries(),
        )
        try:
            plan = publish_plan(folder, new)
        except OSError as error:
            raise CacheError(
                f"the cache {settings.folder or default_folder()} cannot be written ({error}); give another --cache, "
                "or train without one: 'bend-hf train --no-cache'"
            ) from error
    return CacheEntry(
        folder=folder,
        plan=plan,
        dataset=dataset,
        content=content,
        embedder=embedder,
        pooling=settings.pooling,
        show_progress=settings.show_progress,
    )


def _rows_per_bp(embedder: Embedder, dataset: Dataset, content: Content, settings: CacheSettings) -> float:
    """Estimate how many embeddings are stored per nucleotide."""
    if settings.pool_bp:
        return 1 / settings.pool_bp
    return estimate_embeddings_per_bp(embedder, dataset, content.lengths_bp)


def _place(
    dataset: Dataset, embedder: Embedder, settings: CacheSettings, content: Content | None = None
) -> tuple[Path, dict[str, str], Content]:
    """Return the folder of a dataset's entry, what its key is made of, and the content of the dataset."""
    cache, content = settings.folder or default_folder(), content_of(dataset) if content is None else content
    parts = key_parts(content.digest, embedder, settings.stored_dtype, identity_in(cache, embedder))
    if settings.pooling is not None:
        parts |= {"pool_bp": str(settings.pooling.pool_bp), "rounded_to": settings.pooling.rounded_to}
    return entry_folder(cache, _model_of(embedder), settings.stored_dtype, key_of(parts)), parts, content


def _model_of(embedder: Embedder) -> str:
    return embedder.spec.key if embedder.spec is not None else embedder.name
