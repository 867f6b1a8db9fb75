"""Properties of labels, of padding them, and of laying token rows out."""

from __future__ import annotations

from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from bend_hf.data.labels import LabelTable, labels_from_column
from bend_hf.embedders.token_embeddings import dense_labels, pad_embeddings
from bend_hf.tasks._labels import MultiLabel, NucleotideClasses
from bend_hf.types import IGNORE_LABEL

KIND = MultiLabel(names=tuple(f"l{i}" for i in range(12)))
index_lists = st.lists(st.lists(st.integers(0, 11), max_size=5), min_size=1, max_size=12)


def flat(rows: list[list[int]]) -> list[int]:
    """The values of all rows, end to end."""
    return list(chain.from_iterable(rows))


@given(index_lists, st.data())
def test_a_column_reads_back_as_what_was_written(rows: list[list[int]], data: st.DataObject) -> None:
    forms = [data.draw(st.sampled_from(["{}", "{}.0", " {}", "{}."])) for _ in rows]
    column = pa.array([",".join(form.format(i) for i in row) for row, form in zip(rows, forms, strict=True)])
    table = labels_from_column(column, KIND)
    assert [table.values[a:b].tolist() for a, b in pairwise(table.offsets)] == rows


@given(index_lists)
def test_multi_hot_labels_hold_what_the_lists_hold(rows: list[list[int]]) -> None:
    offsets = np.cumsum([0, *map(len, rows)])
    dense = dense_labels(np.array(flat(rows), np.int64), offsets, KIND)
    assert [sorted(np.flatnonzero(row[0]).tolist()) for row in dense] == [sorted(set(row)) for row in rows]


@given(index_lists)
def test_padded_classes_hold_each_row_and_nothing_else(rows: list[list[int]]) -> None:
    offsets = np.cumsum([0, *map(len, rows)])
    padded = dense_labels(np.array(flat(rows), np.int64), offsets, NucleotideClasses(names=KIND.names))
    assert [[v for v in row if v != IGNORE_LABEL] for row in padded.tolist()] == rows


@given(index_lists, st.data())
def test_taking_and_flipping_rows_is_plain_list_work(rows: list[list[int]], data: st.DataObject) -> None:
    table = LabelTable(values=np.array(flat(rows), np.int16), offsets=np.cumsum([0, *map(len, rows)]))
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8)), np.int64)
    minus = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), np.bool_)
    taken = table.take(chosen)
    assert [taken.values[a:b].tolist() for a, b in pairwise(taken.offsets)] == [rows[i] for i in chosen]
    flipped = table.flipped(minus)
    expected = [row[::-1] if back else row for row, back in zip(rows, minus, strict=True)]
    assert flipped.values.tolist() == flat(expected)


@given(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=7), min_size=1, max_size=6))
def test_laid_out_rows_repeat_to_the_nucleotides_of_each_sequence(bp_of_rows: list[list[int]]) -> None:
    embedding_bp = np.array(flat(bp_of_rows), np.int64)
    rows = np.arange(2 * len(embedding_bp), dtype=np.float32).reshape(-1, 2)
    starts = np.cumsum([0, *map(len, bp_of_rows)])
    laid = pad_embeddings(rows, starts, embedding_bp)
    for sequence, (a, b) in enumerate(pairwise(starts)):
        expected = np.repeat(rows[a:b], embedding_bp[a:b], axis=0)
        token_of = laid.token_of_BL[sequence]
        np.testing.assert_array_equal(laid.x_BTD[sequence][token_of[: len(expected)]], expected)
        assert (token_of[len(expected) :] == -1).all()
