"""Paired comparisons: differences, p and Holm's correction, and files that cannot be compared."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bend_hf.cli._main import main
from bend_hf.errors import ConfigError, RecordError
from bend_hf.evaluation.predictions import Predictions, write_predictions
from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap
from bend_hf.evaluation.uncertainty.comparison import compare, holm

N = 200
RNG = np.random.default_rng(0)
TARGET = RNG.integers(0, 2, N).astype(np.int16)


def model(skill: float, seed: int) -> Predictions:
    noise = np.random.default_rng(seed).standard_normal(N)
    return Predictions(
        item=np.arange(N),
        windows=np.arange(N + 1),
        target=TARGET,
        score=(skill * TARGET + noise).astype(np.float32),
        predicted=None,
        label_names=("no", "yes"),
        columns={"chromosome": pa.array([f"chr{number % 10}" for number in range(N)])},
    )


MODELS = {"poor": model(0.0, 1), "good": model(2.0, 2), "fair": model(1.8, 3)}


def test_the_better_model_comes_first_and_the_largest_difference() -> None:
    found = compare(MODELS, "auroc", Bootstrap(resamples=400))
    assert {(one.first, one.second) for one in found[:2]} == {("good", "poor"), ("fair", "poor")}
    assert [one.difference for one in found] == sorted((one.difference for one in found), reverse=True)
    assert found[0].difference == found[0].value_first - found[0].value_second
    assert found[0].low > 0.2
    assert found[0].p == 2 / 401  # no resample turned it round
    assert found[0].p_holm == 6 / 401
    assert found[2].low < 0 < found[2].high
    assert found[2].p > 0.05


def test_what_is_hard_for_both_cancels() -> None:
    good = MODELS["good"]
    assert good.score is not None
    near = replace(good, score=good.score + np.random.default_rng(9).normal(0, 0.05, N).astype(np.float32))
    paired = compare({"good": good, "near": near}, "auroc", Bootstrap(resamples=200))[0]
    apart = compare({"good": good, "other": model(2.0, 7)}, "auroc", Bootstrap(resamples=200))[0]
    assert paired.high - paired.low < 0.3 * (apart.high - apart.low)


def test_model_against_itself_is_no_difference() -> None:
    found = compare({"a": MODELS["good"], "b": MODELS["good"]}, "auprc", Bootstrap(resamples=50))[0]
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_order_of_items_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(N)
    good = MODELS["good"]
    assert good.score is not None
    moved = replace(
        good,
        item=good.item[order],
        target=good.target[order],
        score=good.score[order],
        columns={"chromosome": good.columns["chromosome"].take(pa.array(order))},
    )
    for clusters in ("item", "chromosome"):
        straight, turned = (
            compare({"a": one, "b": MODELS["poor"]}, "auroc", Bootstrap(resamples=50, clusters=clusters))
            for one in (good, moved)
        )
        assert straight == turned


def test_delong_and_bootstrap_agree() -> None:
    two = {"good": MODELS["good"], "fair": MODELS["fair"]}
    exact = compare(two, "auroc", method="delong")[0]
    drawn = compare(two, "auroc", Bootstrap(resamples=1000))[0]
    assert exact.difference == pytest.approx(drawn.difference, abs=1e-12)
    assert exact.high - exact.low == pytest.approx(drawn.high - drawn.low, rel=0.12)
    assert exact.p == pytest.approx(drawn.p, abs=0.08)


def test_holm_worked_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    np.testing.assert_array_equal(holm([0.04, math.nan, 0.03]), [0.06, math.nan, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_other_items_are_refused_by_name() -> None:
    shorter = replace(MODELS["poor"], item=np.arange(1, N + 1))  # the last item of one is not in the other
    with pytest.raises(
        RecordError, match=r"good has 200 items \(sha256 \w{12}\) and poor 200 .*199 of them are the same"
    ):
        compare({"good": MODELS["good"], "poor": shorter}, "auroc")


def test_other_labels_are_refused() -> None:
    poor = MODELS["poor"]
    for other in (replace(poor, target=1 - TARGET), replace(poor, label_names=("benign", "pathogenic"))):
        with pytest.raises(RecordError, match="good and poor have the same items but different labels"):
            compare({"good": MODELS["good"], "poor": other}, "auroc")
    folded = replace(poor, columns={"fold": pa.array(np.arange(N) % 2)})
    with pytest.raises(RecordError, match="different folds"):
        compare({"good": MODELS["good"], "poor": folded}, "auroc")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 set of predictions was given; a comparison needs two"):
        compare({"good": MODELS["good"]}, "auroc")
    with pytest.raises(ConfigError, match="mcc needs classes"):
        compare(MODELS, "mcc")
    with pytest.raises(ConfigError, match="DeLong's test needs the AUROC of one label"):
        compare(MODELS, "auprc", method="delong")
    with pytest.raises(ConfigError, match="level is 2"):
        compare(MODELS, "auroc", level=2)


def test_the_command_prints_a_line_a_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for name, predictions in MODELS.items():
        paths.append(str(tmp_path / f"{name}.parquet"))
        write_predictions(predictions, Path(paths[-1]))
    assert main(["compare", *paths, "--resamples", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["better", "than", "auroc", "and"]
    assert {tuple(line.split()[:2]) for line in lines[2:4]} == {("good", "poor"), ("fair", "poor")}
    assert "raise --resamples" in lines[-1]
    assert main(["compare", *paths, "--method", "delong", "--metric", "auroc"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert main(["compare", paths[0], paths[0]]) == 2
    assert "is given twice" in capsys.readouterr().err
