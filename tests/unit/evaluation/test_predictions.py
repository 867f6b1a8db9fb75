"""Predictions on disk and joined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bend_hf.errors import RecordError
from bend_hf.evaluation.predictions import Predictions, concatenate, has_label, read_predictions, write_predictions


def classes(items: list[int], lengths: list[int]) -> Predictions:
    n = sum(lengths)
    return Predictions(
        item=np.array(items, np.int64),
        windows=np.cumsum([0, *lengths]),
        target=np.arange(n, dtype=np.int16) % 9,
        score=None,
        predicted=(np.arange(n, dtype=np.int16) + 1) % 9,
        label_names=tuple("abcdefghi"),
        columns={"chromosome": pa.array(["chr1"] * len(items))},
    )


def labels(items: list[int], n_labels: int) -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(
        item=np.array(items, np.int64),
        windows=np.arange(len(items) + 1),
        target=rng.integers(0, 2, (len(items), n_labels)).astype(np.int16),
        score=rng.random((len(items), n_labels)).astype(np.float32),
        predicted=None,
        label_names=tuple(f"l{i}" for i in range(n_labels)),
    )


@pytest.mark.parametrize("made", [classes([3, 5], [4, 2]), classes([1], [1]), labels([2, 7, 9], 3), labels([4, 6], 1)])
def test_what_is_written_is_read_back(tmp_path: Path, made: Predictions) -> None:
    path = tmp_path / "p.parquet"
    digest = write_predictions(made, path)
    assert len(digest) == 64
    read = read_predictions(path)
    assert read.label_names == made.label_names
    for name in ("item", "windows", "target", "score", "predicted"):
        expected = getattr(made, name)
        if expected is None:
            assert getattr(read, name) is None
        else:
            np.testing.assert_array_equal(getattr(read, name), expected)
    assert {k: v.to_pylist() for k, v in read.columns.items()} == {k: v.to_pylist() for k, v in made.columns.items()}


def test_predictions_are_never_overwritten(tmp_path: Path) -> None:
    write_predictions(classes([1], [2]), tmp_path / "p.parquet")
    with pytest.raises(RecordError, match="never overwritten"):
        write_predictions(classes([1], [2]), tmp_path / "p.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_an_item_is_answered_if_all_its_values_are_finite() -> None:
    of_labels = labels([2, 7, 9], 3)
    assert of_labels.n_answered == 3
    of_labels.score[1, 2] = np.nan  # type: ignore[index]  # labels() makes scores
    of_labels.score[2, 0] = np.inf  # type: ignore[index]  # labels() makes scores
    assert of_labels.n_answered == 1
    assert classes([3, 5, 6], [4, 2, 0]).n_answered == 3


def test_what_is_no_prediction_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(RecordError, match="is not a prediction file"):
        read_predictions(tmp_path / "p.parquet")


def test_an_item_predicted_twice_is_refused() -> None:
    with pytest.raises(RecordError, match=r"items \[5\] were predicted twice"):
        concatenate([classes([3, 5], [1, 1]), classes([5, 6], [1, 1])])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_joined_parts_are_the_whole_in_the_order_of_items(lengths: list[int], random: object) -> None:
    whole = classes(list(range(len(lengths))), lengths)
    order = list(range(len(lengths)))
    random.shuffle(order)  # type: ignore[attr-defined]
    parts = []
    for item in order:
        a, b = whole.windows[item], whole.windows[item + 1]
        assert whole.predicted is not None
        parts.append(
            Predictions(
                item=whole.item[[item]],
                windows=np.array([0, b - a]),
                target=whole.target[a:b],
                score=None,
                predicted=whole.predicted[a:b],
                label_names=whole.label_names,
                columns={"chromosome": pa.array(["chr1"])},
            )
        )
    joined = concatenate(parts)
    np.testing.assert_array_equal(joined.target, whole.target)
    np.testing.assert_array_equal(joined.windows, whole.windows)
    assert joined.item_sha256 == whole.item_sha256


def test_minus_100_is_a_label_among_real_values_and_none_among_classes() -> None:
    assert has_label(np.array([-100.0, np.nan, 2.0], np.float32)).tolist() == [True, False, True]
    assert has_label(np.array([-100, 0, 1], np.int16)).tolist() == [False, True, True]


def test_windows_without_a_finite_score_have_no_label_and_real_values_stay() -> None:
    made = labels([2, 7], 2)
    made = replace(made, target=np.array([[0, 1], [1, 1]], np.int16), score=np.array([[0.5, np.nan], [0.25, 1]]))
    assert made.answered.target.tolist() == [[0, -100], [1, 1]]
    assert np.isfinite(made.answered.score).all()
    real = replace(made, target=np.array([[0.0, -100.0], [1.0, 1.0]], np.float32))
    assert real.answered.target.tolist() == [[0.0, -100.0], [1.0, 1.0]]
