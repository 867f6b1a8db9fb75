"""Metrics of every score, by consequence, and the picture of a score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from bend_hf.errors import BendError, ConfigError
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import member
from bend_hf.evaluation.uncertainty.bootstrap import intervals_of
from bend_hf.variants import SCORE_COLUMNS, draw, summarise
from bend_hf.variants.plots import roc_points
from bend_hf.variants.summary import as_text

N = 60


def predictions(*, labels: bool = True) -> Predictions:
    rng = np.random.default_rng(0)
    target = np.where(np.arange(N) % 10 == 0, -100, np.arange(N) % 2).astype(np.int16)
    values = {column.name: rng.random(N).astype(np.float32) for column in SCORE_COLUMNS}
    values["log_likelihood_ratio"] = -values["score"]
    values["entropy"][:] = np.nan
    score = values.pop("score")
    columns = {name: pa.array(column, from_pandas=True) for name, column in values.items()}
    places = {"chromosome": pa.array(["chr1"] * N), "start": pa.array(np.arange(N)), "end": pa.array(np.arange(N) + 1)}
    return Predictions(
        item=np.arange(N),
        windows=np.arange(N + 1),
        target=target if labels else np.full(N, -100, np.int16),
        score=score,
        predicted=None,
        label_names=("no", "yes"),
        columns={**places, **columns, "full_label": pa.array(["benign", "missense", "stop"] * (N // 3))},
    )


def test_metrics_are_those_of_scikit_learn() -> None:
    said = predictions()
    found = summarise(said)
    known = said.target != -100
    assert said.score is not None
    assert member(found, "scores", "score", "auroc", "value") == pytest.approx(
        roc_auc_score(said.target[known], said.score[known])
    )
    assert member(found, "scores", "score", "auprc", "value") == pytest.approx(
        average_precision_score(said.target[known], said.score[known])
    )
    assert member(found, "scores", "score", "auprc", "chance") == pytest.approx(said.target[known].mean())
    assert found["labels"] == {"positive": 30, "negative": 24, "none": 6}


def test_score_that_falls_with_an_effect_counts_by_its_negative() -> None:
    found = summarise(predictions())
    assert member(found, "scores", "log_likelihood_ratio", "sign") == -1.0
    assert member(found, "scores", "log_likelihood_ratio", "auroc") == member(found, "scores", "score", "auroc")


def test_score_that_no_variant_has_is_left_out() -> None:
    scores = summarise(predictions())["scores"]
    assert isinstance(scores, dict)
    assert "entropy" not in scores


def test_groups_are_those_of_the_column() -> None:
    said = predictions()
    groups = summarise(said, group_by="full_label")["groups"]
    assert isinstance(groups, dict)
    chosen = (np.arange(N) % 3 == 1) & (said.target != -100)
    assert said.score is not None
    assert list(groups) == ["benign", "missense", "stop"]
    assert member(groups, "missense", "auroc", "value") == pytest.approx(
        roc_auc_score(said.target[chosen], said.score[chosen])
    )
    assert member(groups, "missense", "n") == int(chosen.sum())


def test_group_of_one_class_is_undefined() -> None:
    said = predictions()
    said.columns["kind"] = pa.array(np.where(said.target == 1, "one", "mixed").tolist())
    found = summarise(said, group_by="kind")
    assert member(found, "groups", "one", "auroc", "value") is None
    assert "undefined" in as_text(found)


def test_unknown_group_column_raises() -> None:
    with pytest.raises(ConfigError, match=r"no column 'full_lable' beside the predictions; did you mean 'full_label'"):
        summarise(predictions(), group_by="full_lable")


def test_without_labels_there_is_nothing_to_compare_with() -> None:
    found = summarise(predictions(labels=False), group_by="full_label")
    assert (found["scores"], found["groups"]) == ({}, {})


def test_intervals_stand_beside_the_values() -> None:
    found = summarise(predictions(), intervals=intervals_of)
    low, value, high = (
        member(found, "scores", "score", "auroc", *path)
        for path in (("interval", "low"), ("value",), ("interval", "high"))
    )
    assert isinstance(low, float)
    assert isinstance(value, float)
    assert isinstance(high, float)
    assert low <= value <= high


def test_groups_have_intervals_and_the_text_shows_them() -> None:
    found = summarise(predictions(), group_by="full_label", intervals=intervals_of)
    low, high = (member(found, "groups", "missense", "auroc", "interval", end) for end in ("low", "high"))
    assert isinstance(low, float)
    assert isinstance(high, float)
    (line,) = (line for line in as_text(found).splitlines() if line.startswith("missense"))
    assert f"({low:.4f} to {high:.4f})  0.5000 " in line


def test_text_has_a_line_a_score_and_a_group() -> None:
    lines = as_text(summarise(predictions(), group_by="full_label")).splitlines()
    assert lines[0].split() == ["score", "AUROC", "chance", "AUPRC", "chance", "variants"]
    assert [line.split()[0] for line in lines[-3:]] == ["benign", "missense", "stop"]


def test_roc_curve_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    values, target = rng.integers(0, 9, 200).astype(np.float32), rng.integers(0, 2, 200).astype(np.int16)
    false, true = roc_points(values, target)
    expected = roc_curve(target, values, drop_intermediate=False)
    np.testing.assert_allclose(false, expected[0])
    np.testing.assert_allclose(true, expected[1])


def test_picture_is_png_and_svg_and_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    first = draw(predictions(), tmp_path / "a", title="title")
    second = draw(predictions(), tmp_path / "b", title="title")
    assert [path.name for path in first] == ["a.png", "a.svg"]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    text = first[1].read_text()
    for words in ("no (n = 24)", "yes (n = 30)", "no label (n = 6)", "AUROC", "false positive rate", "title"):
        assert words in text
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_picture_without_labels_has_one_distribution_and_no_curve(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    text = draw(predictions(labels=False), tmp_path / "a")[1].read_text()
    assert "no label (n = 60)" in text
    assert "AUROC" not in text


def test_picture_of_equal_scores_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    same = replace(predictions(), score=np.ones(N, np.float32))
    assert "AUROC 0.500" in draw(same, tmp_path / "a")[1].read_text()


def test_picture_of_a_missing_score_raises(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    with pytest.raises(BendError, match="no variant has the score 'entropy'"):
        draw(predictions(), tmp_path / "a", column="entropy")
    with pytest.raises(ConfigError, match=r"no score 'entrpy'; did you mean 'entropy'"):
        draw(predictions(), tmp_path / "a", column="entrpy")
