"""Batches on their way to a head: in order, on the device in float32, made while the last one is worked on."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bend_hf.embedders.cache.reader import CachedEmbeddings
from bend_hf.embedders.token_embeddings import OnTheFly, Targets, TokenBatch, pad_embeddings
from bend_hf.tasks._labels import NucleotideClasses
from bend_hf.training.batches import Batch, Split, feed
from bend_hf.types import Ints
from tests.cached import Triplets, made, small_dataset

CPU = torch.device("cpu")


def small_split(embeddings: object) -> Split:
    """The small dataset with some source of embeddings."""
    kind = NucleotideClasses(names=tuple("abcde"))
    return Split(dataset=small_dataset(), embeddings=embeddings, targets=Targets(small_dataset(), kind))  # type: ignore[arg-type]


def shares_of(*numbers: list[int]) -> list[Ints]:
    return [np.array(one, np.int64) for one in numbers]


@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=5), width=st.integers(1, 3))
def test_half_precision_stays_half_until_it_is_on_the_device(counts: list[int], width: int) -> None:
    rng = np.random.default_rng(sum(counts))
    rows = rng.standard_normal((sum(counts), width)).astype(np.float16)
    starts, embedding_bp = np.concatenate([[0], np.cumsum(counts)]), rng.integers(1, 4, sum(counts))
    half, single = (
        pad_embeddings(rows, starts, embedding_bp),
        pad_embeddings(rows.astype(np.float32), starts, embedding_bp),
    )
    assert (half.x_BTD.dtype, single.x_BTD.dtype) == (np.float16, np.float32)
    np.testing.assert_array_equal(half.x_BTD.astype(np.float32), single.x_BTD)
    np.testing.assert_array_equal(half.token_of_BL, single.token_of_BL)


def test_a_cache_feeds_what_embedding_on_the_fly_feeds(tmp_path: Path) -> None:
    cached = CachedEmbeddings.of(made(tmp_path).shards, dtype="float16")
    shares = shares_of([7, 3, 39], [0], [12, 11])
    one = list(feed(small_split(cached), shares, CPU))
    other = list(feed(small_split(OnTheFly(small_dataset(), Triplets())), shares, CPU))
    assert [batch.rows.tolist() for batch in one] == [share.tolist() for share in shares]
    for ours, theirs in zip(one, other, strict=True):
        assert ours.inputs[0].dtype == torch.float32
        torch.testing.assert_close(ours.inputs[0], theirs.inputs[0].half().float(), rtol=0, atol=0)
        assert torch.equal(ours.inputs[1], theirs.inputs[1])
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert ours.lengths_bp().tolist() == [len(small_dataset()[int(row)]["sequence"]) for row in ours.rows]


def test_a_batch_that_is_kept_is_not_written_over_by_later_ones(tmp_path: Path) -> None:
    cached = CachedEmbeddings.of(made(tmp_path).shards, dtype="float16")
    kept: list[Batch] = []
    copies: list[torch.Tensor] = []
    for batch in feed(small_split(cached), [np.arange(start, start + 4) for start in range(0, 40, 4)], CPU):
        kept.append(batch)
        copies.append(batch.inputs[0].clone())
    assert all(torch.equal(batch.inputs[0], copy) for batch, copy in zip(kept, copies, strict=True))


class Watched:
    """Says which batches were asked for; fails at one of them."""

    width = 1

    def __init__(self, fails_at: int | None = None) -> None:
        self.asked: list[list[int]] = []
        self._fails_at = fails_at

    def __len__(self) -> int:
        return 40

    def rows(self, rows: Ints) -> TokenBatch:
        self.asked.append(rows.tolist())
        if len(self.asked) - 1 == self._fails_at:
            raise OSError("the disk is gone")
        return TokenBatch(x_BTD=np.zeros((len(rows), 1, 1), np.float32), token_of_BL=np.zeros((len(rows), 3), np.int64))


def test_no_more_than_one_batch_is_made_ahead() -> None:
    source = Watched()
    batches = feed(small_split(source), shares_of([1], [2], [3], [4], [5]), CPU)
    next(batches)
    batches.close()  # drops the second batch, or waits for it if it was started
    assert source.asked in ([[1]], [[1], [2]])


def test_a_batch_that_cannot_be_made_is_an_error_at_its_place() -> None:
    source = Watched(fails_at=2)
    batches = feed(small_split(source), shares_of([1], [2], [3], [4]), CPU)
    assert [next(batches).rows.tolist() for _ in range(2)] == [[1], [2]]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_no_batch_feeds_nothing() -> None:
    assert list(feed(small_split(Watched()), [], CPU)) == []


def test_a_process_without_an_item_is_fed_padding_alone() -> None:
    dataset = datasets.Dataset.from_dict({"item": [0, 1], "labels": [[1, 2], [3]]})
    kind = NucleotideClasses(names=tuple("abcd"))
    split = Split(dataset=dataset, embeddings=Watched(), targets=Targets(dataset, kind))
    (batch,) = feed(split, shares_of([]), CPU)
    assert len(batch.rows) == 0
    assert (batch.labels == -100).all()
    assert (batch.inputs[-1] == -1).all()
