"""Embeddings as Arrow columns: made once in shards, resumable by any number of processes, read at memcpy speed.

For ``bend-hf embed`` and for training, which uses what is there and makes what is missing:

    source = open_embeddings(dataset, embedder, folder=default_folder(), accelerator=accelerator)
    batch = source.rows(np.array([7, 1, 4]))      # TokenBatch: x_BTD in float16 or float32, token_of_BL

A task with folds opens its parts, so that a part is embedded once and not once for each fold:

    source = open_embeddings([parts[number] for number in train], embedder, folder=default_folder())

>>> from bend_hf.embedders.cache import default_folder
>>> default_folder().name
'embeddings'
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders.token_embeddings import EmbeddingSource
    from bend_hf.types import StoredDtype


def default_folder() -> Path:
    """``embeddings`` below ``$BEND_HF_CACHE``, or below ``~/.cache/bend_hf``."""
    from bend_hf.data.download import cache_folder

    return cache_folder() / "embeddings"


def open_embeddings(
    dataset: Dataset | Sequence[Dataset],
    embedder: Embedder,
    *,
    folder: Path,
    dtype: StoredDtype = "float16",
    no_cache: bool = False,
    accelerator: Accelerator | None = None,
    label: str = "",
    progress: bool = True,
) -> EmbeddingSource:
    """The embeddings of a split: what is in the cache is read, what is missing is made first.

    Every process of a run calls it; each makes a share of the missing shards, and all return when none is missing.

    Args:
        dataset: The split, with a ``sequence`` column; or several datasets that are read as one, each of them
            kept for itself (the parts of folds).
        embedder: What embeds it. One without weights costs nothing and is never cached.
        folder: The cache, see ``default_folder``.
        dtype: How token rows are stored and given: ``float16``, ``float32``, or ``bfloat16``, which is stored as
            its 16 bits and given as float32.
        no_cache: Make embeddings when they are asked for, every time; for what is bigger than the disk.
        accelerator: Which process of how many this is; None: the only one.
        label: What ``bend-hf cache list`` calls it, for example ``gene_finding train``.
        progress: Show a bar on the main process.

    Returns:
        The rows. ``x_BTD`` is float16 where that is what is stored: a head casts it on its device.

    Raises:
        CacheError: The disk cannot hold what is missing, or a number does not fit ``dtype``.
    """
    from bend_hf.embedders.cache.open import open_embeddings as opened

    return opened(
        dataset,
        embedder,
        folder=folder,
        dtype=dtype,
        no_cache=no_cache,
        accelerator=accelerator,
        label=label,
        progress=progress,
    )
