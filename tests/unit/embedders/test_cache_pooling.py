"""Means over label windows: equal to averaging each nucleotide's embedding, however they are computed and stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bend_hf.embedders._spec import TokenEmbeddings
from bend_hf.embedders.cache import CacheSettings, open_embeddings
from bend_hf.embedders.cache.dtypes import decode_float32
from bend_hf.embedders.cache.manage import list_entries
from bend_hf.embedders.cache.pooling import PooledEmbeddings, mean_per_window
from bend_hf.embedders.cache.reader import CachedEmbeddings
from bend_hf.training.heads.linear import LinearHead
from bend_hf.types import StoredDtype
from tests.cached import Triplets, small_dataset

POOL_BP = 4


def settings(folder: Path, *, dtype: StoredDtype = "float16", pool_bp: int | None = POOL_BP) -> CacheSettings:
    return CacheSettings(folder=folder, dtype=dtype, pool_bp=pool_bp, show_progress=False)


@given(lengths_bp=st.lists(st.integers(1, 7), min_size=1, max_size=12), pool_bp=st.integers(1, 9))
def test_a_mean_is_that_of_the_nucleotides_of_the_window(lengths_bp: list[int], pool_bp: int) -> None:
    values = np.random.default_rng(0).normal(size=(len(lengths_bp), 3)).astype(np.float32)
    tokens = TokenEmbeddings(values=values, embedding_bp=np.array(lengths_bp))
    means, rows = mean_per_window(tokens, pool_bp=pool_bp), tokens.upsampled()
    expected = [rows[start : start + pool_bp] for start in range(0, len(rows), pool_bp)]
    assert means.embedding_bp.tolist() == [len(window) for window in expected]
    np.testing.assert_allclose(means.values, [window.mean(axis=0) for window in expected], rtol=1e-5, atol=1e-6)


def test_every_float16_is_widened_exactly_also_from_a_mapped_file() -> None:
    stored = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    expected = stored.astype(np.float32)
    np.testing.assert_array_equal(decode_float32(stored, "float16"), expected)
    stored.flags.writeable = False
    np.testing.assert_array_equal(decode_float32(stored, "float16"), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_means_from_the_model_and_from_cached_tokens_are_the_same_bits(tmp_path: Path, dtype: StoredDtype) -> None:
    rows = np.array([3, 0, 7])
    fresh = open_embeddings(small_dataset(), Triplets(), settings(tmp_path / "a", dtype=dtype))
    open_embeddings(small_dataset(), Triplets(), settings(tmp_path / "b", dtype=dtype, pool_bp=None))
    read = open_embeddings(small_dataset(), Triplets(), settings(tmp_path / "b", dtype=dtype))
    assert isinstance(fresh, CachedEmbeddings)
    assert isinstance(read, PooledEmbeddings)
    assert len(list_entries(tmp_path / "b")) == 1, "cached tokens are read, and nothing is stored twice"
    np.testing.assert_array_equal(fresh.rows(rows).x_BTD, read.rows(rows).x_BTD)
    np.testing.assert_array_equal(fresh.rows(rows).token_of_BL, read.rows(rows).token_of_BL)
    assert len(read) == len(fresh) == len(small_dataset())
    assert read.width == fresh.width


def test_each_window_length_has_its_own_entry(tmp_path: Path) -> None:
    for pool_bp in (2, 4, 4, None):
        open_embeddings(small_dataset(), Triplets(), settings(tmp_path, pool_bp=pool_bp))
    assert len(list_entries(tmp_path)) == 3


def test_a_linear_head_sees_the_same_in_means_and_in_tokens(tmp_path: Path) -> None:
    head = LinearHead(width=Triplets().width, n_outputs=2, pool_bp=POOL_BP)
    rows = np.arange(6)
    is_window = np.arange(200 // POOL_BP) < np.array(
        [[len(small_dataset()[int(row)]["sequence"]) // POOL_BP] for row in rows]
    )
    logits = []
    for folder, pool_bp in (("a", POOL_BP), ("b", None)):
        batch = open_embeddings(
            small_dataset(), Triplets(), settings(tmp_path / folder, dtype="float32", pool_bp=pool_bp)
        ).rows(rows)
        found = head(torch.from_numpy(batch.x_BTD), torch.from_numpy(batch.token_of_BL))
        logits.append(found[torch.from_numpy(is_window[:, : found.shape[1]])])  # other windows reach into padding
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)
