"""Metrics of every score and by consequence."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from bend_hf.errors import ConfigError
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import member
from bend_hf.evaluation.uncertainty.intervals import intervals_of
from bend_hf.variants import SCORES, summarize_scores
from bend_hf.variants.summary import as_table

N = 60
PLACE_BP = np.arange(N) * 2_000_000  # far apart


def predictions(*, labels: bool = True) -> Predictions:
    rng = np.random.default_rng(0)
    target = np.where(np.arange(N) % 10 == 0, -100, np.arange(N) % 2).astype(np.int16)
    values = {score.key: rng.random(N).astype(np.float32) for score in SCORES.in_order()}
    values["log_likelihood_ratio"] = -values["score"]
    values["entropy"][:] = np.nan
    score = values.pop("score")
    columns = {name: pa.array(column, from_pandas=True) for name, column in values.items()}
    places = {"chromosome": pa.array(["chr1"] * N), "start": pa.array(PLACE_BP), "end": pa.array(PLACE_BP + 1)}
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
    given = predictions()
    found = summarize_scores(given)
    known = given.target != -100
    assert given.score is not None
    assert member(found, "scores", "score", "auroc", "value") == pytest.approx(
        roc_auc_score(given.target[known], given.score[known])
    )
    assert member(found, "scores", "score", "auprc", "value") == pytest.approx(
        average_precision_score(given.target[known], given.score[known])
    )
    assert member(found, "scores", "score", "auprc", "chance") == pytest.approx(given.target[known].mean())
    assert found["labels"] == {"positive": 30, "negative": 24, "none": 6}


def test_score_that_falls_with_an_effect_counts_by_its_negative() -> None:
    found = summarize_scores(predictions())
    assert member(found, "scores", "log_likelihood_ratio", "sign") == -1.0
    assert member(found, "scores", "log_likelihood_ratio", "auroc") == member(found, "scores", "score", "auroc")


def test_score_that_no_variant_has_is_left_out() -> None:
    scores = summarize_scores(predictions())["scores"]
    assert isinstance(scores, dict)
    assert "entropy" not in scores


def test_groups_are_those_of_the_column() -> None:
    given = predictions()
    groups = summarize_scores(given, group_by="full_label")["groups"]
    assert isinstance(groups, dict)
    chosen = (np.arange(N) % 3 == 1) & (given.target != -100)
    assert given.score is not None
    assert list(groups) == ["benign", "missense", "stop"]
    assert member(groups, "missense", "auroc", "value") == pytest.approx(
        roc_auc_score(given.target[chosen], given.score[chosen])
    )
    assert member(groups, "missense", "n") == int(chosen.sum())


def test_group_of_one_class_is_undefined() -> None:
    given = predictions()
    given.columns["kind"] = pa.array(np.where(given.target == 1, "one", "mixed").tolist())
    found = summarize_scores(given, group_by="kind")
    assert member(found, "groups", "one", "auroc", "value") is None
    assert "undefined" in str(as_table(found))


def test_unknown_group_column_raises() -> None:
    with pytest.raises(ConfigError, match=r"no column 'full_lable'; did you mean 'full_label'"):
        summarize_scores(predictions(), group_by="full_lable")


def test_unlabeled_variants_have_no_metrics() -> None:
    found = summarize_scores(predictions(labels=False), group_by="full_label")
    assert (found["scores"], found["groups"]) == ({}, {})


def test_intervals_contain_the_values() -> None:
    found = summarize_scores(predictions(), intervals=intervals_of)
    low, value, high = (
        member(found, "scores", "score", "auroc", *path)
        for path in (("interval", "low"), ("value",), ("interval", "high"))
    )
    assert isinstance(low, float)
    assert isinstance(value, float)
    assert isinstance(high, float)
    assert low <= value <= high


def test_groups_have_intervals_and_the_text_shows_them() -> None:
    found = summarize_scores(predictions(), group_by="full_label", intervals=intervals_of)
    low, high = (member(found, "groups", "missense", "auroc", "interval", end) for end in ("low", "high"))
    assert isinstance(low, float)
    assert isinstance(high, float)
    (line,) = (line for line in str(as_table(found)).splitlines() if line.startswith("missense"))
    assert f"({low:.4f} to {high:.4f})  0.5000 " in line


def test_text_has_a_line_per_score_and_group() -> None:
    lines = str(as_table(summarize_scores(predictions(), group_by="full_label"))).splitlines()
    assert lines[0].split() == ["score", "AUROC", "chance", "AUPRC", "chance", "variants"]
    assert [line.split()[0] for line in lines[-3:]] == ["benign", "missense", "stop"]
