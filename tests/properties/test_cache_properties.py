"""A cache returns what the embedder returned, for any lengths, items, order and dtype."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import datasets
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bend_hf.embedders.cache import CacheSettings
from bend_hf.embedders.cache.dtypes import decode, encode
from bend_hf.embedders.cache.fill import shard_order
from bend_hf.embedders.cache.key import content_of
from bend_hf.embedders.cache.open import find_entry
from bend_hf.embedders.cache.reader import CachedEmbeddings, DeviceEmbeddings
from bend_hf.embedders.cache.shards import shard_starts
from bend_hf.embedders.token_embeddings import OnTheFly
from bend_hf.types import StoredDtype
from tests.cached import SHARD_BYTES, Triplets, random_sequences

DTYPES = st.sampled_from(get_args(StoredDtype))


def as_stored(rows: NDArray[np.float32], dtype: StoredDtype) -> NDArray[np.float32]:
    """Round numbers as torch does."""
    return torch.from_numpy(rows).to(getattr(torch, dtype)).float().numpy()


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 120), min_size=1, max_size=25),
    dtype=DTYPES,
    shard_bytes=st.sampled_from([100, SHARD_BYTES, 1 << 20]),
    data=st.data(),
)
def test_cached_embeddings_are_those_of_the_embedder(
    lengths: list[int], dtype: StoredDtype, shard_bytes: int, data: st.DataObject
) -> None:
    dataset = datasets.Dataset.from_dict({"sequence": random_sequences(lengths)})
    items = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=12))
    with TemporaryDirectory() as folder:
        settings = CacheSettings(folder=Path(folder), dtype=dtype, shard_bytes=shard_bytes, show_progress=False)
        entry = find_entry(dataset, Triplets(), settings)
        entry.fill()
        source = CachedEmbeddings.of(entry.shards, dtype=dtype)
        expected = OnTheFly(dataset, Triplets()).rows(np.array(items))
        found = source.rows(np.array(items))
        on_device = DeviceEmbeddings(source, torch.device("cpu")).rows(np.array(items))
    assert len(source) == len(lengths)
    for x_BTD, token_of_BL in (
        (found.x_BTD.astype(np.float32), found.token_of_BL),
        (on_device.x_BTD.numpy(), on_device.token_of_BL.numpy()),
    ):
        np.testing.assert_array_equal(token_of_BL, expected.token_of_BL)
        np.testing.assert_array_equal(x_BTD, as_stored(expected.x_BTD, dtype))


@given(
    lengths=st.lists(st.integers(1, 10_000), min_size=1, max_size=200),
    shard_bp=st.integers(1, 1_000_000),
)
def test_shards_hold_every_item_once_and_are_about_equal(lengths: list[int], shard_bp: int) -> None:
    starts = shard_starts(np.array(lengths), shard_bp=shard_bp)
    assert starts[0] == 0
    assert starts[-1] == len(lengths)
    assert (np.diff(starts) > 0).all()
    assert len(starts) - 1 <= 256
    sizes = np.add.reduceat(lengths, starts[:-1])
    n_wanted = max(1, min(-(-sum(lengths) // shard_bp), len(lengths), 256))
    assert sizes.max() <= sum(lengths) / n_wanted + max(lengths)


@given(numbers=st.lists(st.integers(0, 300), unique=True, max_size=40), n_processes=st.integers(1, 9))
def test_the_first_shards_of_all_ranks_are_all_shards(numbers: list[int], n_processes: int) -> None:
    orders = [shard_order(numbers, rank=rank, n_processes=n_processes) for rank in range(n_processes)]
    assert all(sorted(order) == sorted(numbers) for order in orders)
    shares = [order[: len(numbers[rank::n_processes])] for rank, order in enumerate(orders)]
    assert sorted(number for share in shares for number in share) == sorted(numbers)


@settings(deadline=None)
@given(
    sequences=st.lists(st.text("ACGTN", min_size=1, max_size=20), min_size=1, max_size=20),
    cuts=st.sets(st.integers(0, 20)),
)
def test_content_does_not_depend_on_how_a_dataset_is_cut(sequences: list[str], cuts: set[int]) -> None:
    labels = [[len(one)] * (place % 3) for place, one in enumerate(sequences)]
    whole = datasets.Dataset.from_dict({"sequence": sequences, "labels": labels})
    edges = sorted({0, len(sequences), *(cut for cut in cuts if cut < len(sequences))})
    parts = [whole.select(range(a, b)) for a, b in pairwise(edges)]
    assert content_of(datasets.concatenate_datasets(parts)).digest == content_of(whole).digest


@settings(deadline=None)
@given(
    rows=st.lists(st.floats(-60_000, 60_000, width=32), min_size=1, max_size=50),
    dtype=DTYPES,
)
def test_numbers_are_rounded_as_torch_rounds_them(rows: list[float], dtype: StoredDtype) -> None:
    numbers = np.array(rows, np.float32).reshape(-1, 1)
    found = decode(encode(numbers, dtype), dtype).astype(np.float32)
    np.testing.assert_array_equal(found, as_stored(numbers, dtype))
