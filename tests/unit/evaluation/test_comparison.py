"""Paired comparisons: differences, p and Holm's correction, and files that cannot be compared."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from bend_hf.cli._main import main
from bend_hf.cli.compare import short_names
from bend_hf.errors import ConfigError, RecordError
from bend_hf.evaluation.predictions import Predictions, write_predictions
from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap
from bend_hf.evaluation.uncertainty.comparison import compare, holm, sign_flip_p

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
    assert found[0].p < 1e-3
    assert found[0].p_holm == 3 * found[0].p
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


@pytest.mark.parametrize("method", ["paired", "bootstrap", "delong"])
def test_models_are_compared_on_the_items_that_all_of_them_score(
    method: Literal["paired", "bootstrap", "delong"], caplog: pytest.LogCaptureFixture
) -> None:
    lacking = []
    for name, missing in (("good", slice(0, 30)), ("poor", slice(20, 40))):
        scores = np.array(MODELS[name].score)
        scores[missing] = np.nan
        lacking.append(replace(MODELS[name], score=scores))
    draws = Bootstrap(resamples=100, clusters="item")
    (found,) = compare({"good": lacking[0], "poor": lacking[1]}, "auroc", draws, method=method)
    assert "40 of" in caplog.text
    assert "(good, poor), and these items are left out for all models" in caplog.text
    for name, value in (("good", found.value_first), ("poor", found.value_second)):
        scores = MODELS[name].score
        assert scores is not None
        assert value == pytest.approx(roc_auc_score(TARGET[40:], scores[40:]))


def test_predictions_without_a_label_have_no_difference_and_no_warning_of_numpy() -> None:
    places = {"start": pa.array(np.arange(N) * 1000), "end": pa.array(np.arange(N) * 1000 + 10)}
    one, other = (
        replace(
            MODELS[name], target=np.full(N, -100, np.int16), columns={"chromosome": pa.array(["chr1"] * N), **places}
        )
        for name in ("good", "poor")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = compare({"one": one, "other": other}, "auroc")
    assert math.isnan(found.difference)
    assert math.isnan(found.p)


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
            compare({"a": one, "b": MODELS["poor"]}, "auroc", Bootstrap(resamples=50, clusters=clusters))[0]
            for one in (good, moved)
        )
        for name in ("difference", "low", "high", "p"):
            assert getattr(straight, name) == pytest.approx(getattr(turned, name), abs=0.005 if name == "p" else 1e-12)


def test_delong_bootstrap_and_sign_flips_agree() -> None:
    two = {"good": MODELS["good"], "fair": MODELS["fair"]}
    exact = compare(two, "auroc", method="delong")[0]
    drawn = compare(two, "auroc", Bootstrap(resamples=1000), method="bootstrap")[0]
    flipped = compare(two, "auroc")[0]
    for other in (drawn, flipped):
        assert exact.difference == pytest.approx(other.difference, abs=1e-12)
        assert exact.high - exact.low == pytest.approx(other.high - other.low, rel=0.12)
        assert exact.p == pytest.approx(other.p, abs=0.08)


def test_holm_worked_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    np.testing.assert_array_equal(holm([0.04, math.nan, 0.03]), [0.06, math.nan, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_other_items_are_refused_by_name() -> None:
    shorter = replace(MODELS["poor"], item=np.arange(1, N + 1))  # the last item of one is not in the other
    with pytest.raises(
        RecordError, match=r"good has 200 items \(sha256 \w{12}\) and poor 200 .*199 of them lie at the same places"
    ):
        compare({"good": MODELS["good"], "poor": shorter}, "auroc")


def test_other_labels_are_refused() -> None:
    poor = MODELS["poor"]
    with pytest.raises(RecordError, match="good and poor have the same places but 200 items with other labels"):
        compare({"good": MODELS["good"], "poor": replace(poor, target=1 - TARGET)}, "auroc")
    with pytest.raises(RecordError, match="good has the labels no, yes and poor benign, pathogenic"):
        compare({"good": MODELS["good"], "poor": replace(poor, label_names=("benign", "pathogenic"))}, "auroc")
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
    assert main(["compare", *paths, "--method", "bootstrap", "--resamples", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["better", "than", "auroc", "and"]
    assert {tuple(line.split()[:2]) for line in lines[2:4]} == {("good", "poor"), ("fair", "poor")}
    assert "raise --resamples" in lines[-2]
    assert lines[-1] == "Protocol and data were not compared: no record is next to poor, good, fair."
    assert main(["compare", *paths, "--method", "delong", "--metric", "auroc"]) == 0
    assert capsys.readouterr().out.splitlines()[-2] == (
        "Over 200 items (the items have no places). 3 pairs; p is corrected by Holm's method."
    )
    assert main(["compare", *paths]) == 0
    said = capsys.readouterr().out
    assert "Smallest difference that this test finds in 4 of 5 cases: 0." in said
    assert "Trained once: fair, good, poor." in said
    assert main(["compare", paths[0], paths[0]]) == 2
    assert "is given twice" in capsys.readouterr().err


def test_the_command_takes_folders_and_records_and_names_runs_by_their_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, predictions in MODELS.items():
        write_predictions(predictions, tmp_path / f"mine__{name}__seed0__20260101T000000.parquet")
    record, other = (tmp_path / f"mine__{name}__seed0__20260101T000000.json" for name in ("good", "poor"))
    assert main(["compare", str(record), str(other)]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[2].split()[:2] == ["good", "poor"]
    assert "Trained once: good, poor." in said
    assert main(["compare", str(tmp_path / "nowhere.parquet"), str(other)]) == 1
    assert "nowhere.parquet does not exist; give the .parquet files of runs" in capsys.readouterr().err
    assert main(["compare", str(tmp_path)]) == 1
    assert "no result record in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a__x__seed0__20260101T000000", "a__x__seed1__20260101T000001"], ["x, seed0", "x, seed1"]),
        (["a__x__seed0__20260101T000000", "a__x__seed0__20260101T000001"], None),
        (["a__m.py__seed0__20260101T000000", "m.py"], ["m.py, seed0", "m.py"]),
    ],
)
def test_short_names_tell_all_runs_apart(names: list[str], shown: list[str] | None) -> None:
    assert list(short_names(names).values()) == (shown or names)


def test_sign_flips_worked_by_hand() -> None:
    # of 4 patterns of (3, 1): 4, 2, -2, -4; two are as far as 4
    assert sign_flip_p(np.array([3.0, 1.0])) == 0.5
    assert sign_flip_p(np.array([3.0, -1.0, 0.0])) == 1.0
    assert sign_flip_p(np.ones(5)) == 2 / 2**5
    assert sign_flip_p(np.ones(16)) == 2 / 2**16
    assert sign_flip_p(np.zeros(3)) == 1.0
    assert sign_flip_p(np.ones(3000)) == 1 / 10_000


def test_many_sign_flips_are_about_a_normal_test() -> None:
    rng = np.random.default_rng(0)
    for n in (200, 5000):
        contributions = rng.standard_normal(n) + 1.5 / math.sqrt(n)
        z = abs(contributions.sum()) / math.sqrt((contributions**2).sum())
        assert sign_flip_p(contributions) == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.015)


@pytest.mark.parametrize("n", [2, 4, 5])
def test_p_is_not_below_what_the_number_of_clusters_allows(n: int) -> None:
    chromosome = pa.array(np.arange(N) % n)
    models = {name: replace(one, columns={"chromosome": chromosome}) for name, one in MODELS.items()}
    for one in compare(models, "auroc", Bootstrap(clusters="chromosome")):
        assert one.p >= 2 / 2**n > 0.05


def test_one_cluster_says_nothing_of_others() -> None:
    models = {name: replace(one, columns={"chromosome": pa.array(["chr1"] * N)}) for name, one in MODELS.items()}
    for method in ("paired", "bootstrap"):
        found = compare(models, "auroc", Bootstrap(resamples=50, clusters="chromosome"), method=method)[0]  # type: ignore[arg-type]
        assert found.difference > 0.2
        assert math.isnan(found.low)
        assert math.isnan(found.p)


def test_variation_of_trainings_is_part_of_the_interval() -> None:
    alike = compare({"a": [model(2.0, 2)] * 3, "b": [model(1.0, 3)] * 3}, "auroc")[0]
    assert alike.se_trainings == pytest.approx(0.0, abs=1e-12)
    varied = compare({"a": [model(skill, 2) for skill in (1.0, 2.0, 3.0)], "b": [model(1.0, 3)] * 3}, "auroc")[0]
    assert varied.n_trainings == (3, 3)
    values = [compare({"a": model(skill, 2), "b": model(1.0, 3)}, "auroc")[0] for skill in (1.0, 2.0, 3.0)]
    trained = np.std([one.difference if one.first == "a" else -one.difference for one in values], ddof=1)
    assert varied.se_trainings == pytest.approx(trained / math.sqrt(3), rel=1e-6)
    assert varied.p > alike.p
    assert math.isnan(values[0].se_trainings)


def test_several_trainings_need_the_paired_test() -> None:
    with pytest.raises(ConfigError, match="a has 2 trainings, which --method bootstrap cannot take into account"):
        compare({"a": [MODELS["good"]] * 2, "b": MODELS["fair"]}, "auroc", method="bootstrap")


def test_detectable_difference_is_found_in_four_of_five_cases() -> None:
    rng = np.random.default_rng(0)
    found, sizes = [], []
    for _ in range(150):
        target = rng.integers(0, 2, 200).astype(np.int16)
        shared = rng.standard_normal(200)
        pair = {
            name: replace(
                MODELS["good"],
                target=target,
                score=(skill * target + shared + 0.7 * rng.standard_normal(200)).astype(np.float32),
            )
            for name, skill in (("a", 1.62), ("b", 1.15))
        }
        one = compare(pair, "auroc")[0]
        found.append(one.p < 0.05)
        sizes.append((one.detectable, one.difference if one.first == "a" else -one.difference))
    detectable, difference = np.mean(sizes, axis=0)
    assert difference == pytest.approx(detectable, rel=0.12)
    assert np.mean(found) == pytest.approx(0.8, abs=0.12)


def test_the_same_ridge_trained_again_is_seldom_better() -> None:
    rng = np.random.default_rng(3)
    n_rows, width, n_test = 80, 20, 150
    weights = rng.standard_normal(width) / 3
    better = []
    for _ in range(150):
        rows, test = rng.standard_normal((n_rows, width)), rng.standard_normal((n_test, width))
        label = (rows @ weights + rng.standard_normal(n_rows) > 0).astype(float)
        target = (test @ weights + rng.standard_normal(n_test) > 0).astype(np.int16)

        plain = replace(
            MODELS["good"], item=np.arange(n_test), windows=np.arange(n_test + 1), target=target, columns={}
        )
        trained: dict[str, list[Predictions]] = {"a": [], "b": []}
        for name in ("a", "b") * 3:
            drawn = rng.integers(0, n_rows, n_rows)
            x, y = rows[drawn], label[drawn] - label.mean()
            fitted = np.linalg.solve(x.T @ x + np.eye(width), x.T @ y)
            trained[name].append(replace(plain, score=(test @ fitted).astype(np.float32)))
        better.append(compare(trained, "auroc")[0].p < 0.05)
    assert np.mean(better) <= 0.06
