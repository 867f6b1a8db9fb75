"""Means of token embeddings over label windows: all that a linear head reads of them, in a fraction of the space.

A window of 512 nucleotides becomes one row. Embeddings are rounded to the dtype of the cache before they are averaged,
so the means are the same whether they are computed from the model or from cached token embeddings.

>>> from bend_hf.embedders._spec import TokenEmbeddings
>>> tokens = TokenEmbeddings(values=np.array([[1.0], [4.0]], np.float32), embedding_bp=np.array([3, 2]))
>>> means = mean_per_window(tokens, pool_bp=2)
>>> means.values.ravel().tolist(), means.embedding_bp.tolist()
([1.0, 2.5, 4.0], [2, 2, 1])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bend_hf.embedders._pooling import Windows
from bend_hf.embedders._spec import TokenEmbeddings
from bend_hf.embedders.cache.dtypes import decode_float32, encode
from bend_hf.embedders.token_embeddings import TokenBatch, pad_embeddings
from bend_hf.types import Ints, StoredDtype

if TYPE_CHECKING:
    from pathlib import Path

    from bend_hf.embedders.cache.reader import CachedEmbeddings


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """How token embeddings are averaged.

    Attributes:
        pool_bp: Nucleotides in a window.
        rounded_to: Dtype that embeddings are rounded to before the mean is taken; means are float32.
    """

    pool_bp: int
    rounded_to: StoredDtype

    def of(self, tokens: TokenEmbeddings) -> TokenEmbeddings:
        """Return the means of one sequence, see ``mean_per_window``.

        Raises:
            CacheError: A number is not finite, or too large for ``rounded_to``.
        """
        rounded = decode_float32(encode(tokens.values, self.rounded_to), self.rounded_to)
        return mean_per_window(TokenEmbeddings(values=rounded, embedding_bp=tokens.embedding_bp), pool_bp=self.pool_bp)


def mean_per_window(tokens: TokenEmbeddings, *, pool_bp: int) -> TokenEmbeddings:
    """Average the embeddings of a sequence over windows that lie next to each other.

    Args:
        tokens: Token embeddings, float32; a token may belong to two windows.
        pool_bp: Nucleotides in a window.

    Returns:
        One embedding per window, and one for the nucleotides at the end that fill no window.
    """
    windows = Windows.of(np.array([0, len(tokens.values)]), np.asarray(tokens.embedding_bp, np.int64), pool_bp=pool_bp)
    return TokenEmbeddings(values=windows.means_of_array(tokens.values), embedding_bp=windows.bp)


class PooledEmbeddings:
    """The means of cached token embeddings, computed as they are read; an ``EmbeddingSource``.

    Args:
        source: The cached token embeddings.
        pooling: How they are averaged.
    """

    def __init__(self, source: CachedEmbeddings, pooling: Pooling) -> None:
        self._source = source
        self._pooling = pooling

    @property
    def width(self) -> int:
        """Width of an embedding."""
        return self._source.width

    @property
    def files(self) -> tuple[Path, ...]:
        """The cache files that are read."""
        return self._source.files

    def __len__(self) -> int:
        return len(self._source)

    def rows(self, rows: Ints) -> TokenBatch:
        """Return the means of some items, float32.

        Args:
            rows: Item numbers, in any order, shape (B,).
        """
        items = [self._source.item(row) for row in rows.tolist()]
        windows = Windows.of(
            np.cumsum([0, *(len(item.embedding_bp) for item in items)]),
            np.concatenate([item.embedding_bp for item in items]).astype(np.int64),
            pool_bp=self._pooling.pool_bp,
        )
        values = decode_float32(np.concatenate([item.values for item in items]), self._source.dtype)
        return pad_embeddings(windows.means_of_array(values), windows.starts, windows.bp)
