"""A cache of token embeddings on disk: computed once, by any number of processes, and read at memory speed.

In goes a dataset with a ``sequence`` column and an embedder; out comes an ``EmbeddingSource``:

    source = open_embeddings(dataset, embedder, CacheSettings(dtype="float32"), accelerator=accelerator)
    batch = source.rows(np.array([7, 1, 4]))      # TokenBatch: x_BTD in float16 or float32, token_of_BL

``open`` finds or fills the cache entry of a dataset, ``key`` names it, ``shards`` cuts it, ``fill`` and ``writer``
compute missing shards, ``layers`` those of several layers from one pass, ``reader`` reads them, ``estimate`` predicts
size and time, ``manage`` lists and prunes entries. To add a stored dtype, add it to ``dtypes``.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.files import cache_folder

if TYPE_CHECKING:
    from bend_hf.embedders.cache.open import CacheSettings, open_embeddings

_MODULE_OF: Final = {"CacheSettings": "open", "open_embeddings": "open"}

__all__ = ["CacheSettings", "default_folder", "open_embeddings"]


def default_folder() -> Path:
    """Return ``embeddings`` below ``$BEND_HF_CACHE``, by default below ``~/.cache/bend_hf``.

    >>> default_folder().name
    'embeddings'
    """
    return cache_folder("embeddings")


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
