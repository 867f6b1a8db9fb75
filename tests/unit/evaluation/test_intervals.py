"""Intervals: cases worked by hand, what counts as one observation, and what is marked or undefined."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import norm, rankdata
from scipy.stats import t as student
from sklearn.metrics import average_precision_score, matthews_corrcoef

from bend_hf.errors import ConfigError
from bend_hf.evaluation.metrics import score
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap, draws_of
from bend_hf.evaluation.uncertainty.clusters import as_clusters, choose_clusters
from bend_hf.evaluation.uncertainty.delong import delong
from bend_hf.evaluation.uncertainty.influence import influences, spread_of
from bend_hf.evaluation.uncertainty.intervals import RULES, interval_of, intervals_of, wilson, with_intervals
from tests.unit.evaluation.test_bootstrap import classes, noisy, scored


def placed(n: int, chromosomes: int, step_bp: int, seed: int = 0) -> Predictions:
    """Items of one label, equally spaced on some chromosomes."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, n)
    start = np.arange(n) // chromosomes * step_bp
    return scored(
        (rng.standard_normal(n) + target).tolist(),
        target.tolist(),
        chromosome=[f"chr{index % chromosomes}" for index in range(n)],
        start=start.tolist(),
        end=(start + 512).tolist(),
    )


def test_wilson_worked_by_hand() -> None:
    # 9 of 10 right, by Wilson 1927 with z = 1.96: 0.5958 to 0.9821
    found = wilson(0.9, 0.09 / 10, 1e9, metric="auroc", level=0.95)
    assert found == pytest.approx((0.5958, 0.9821), abs=1e-4)
    # MCC of 0.8 is the same on the range -1 to 1
    assert wilson(0.8, 4 * 0.09 / 10, 1e9, metric="mcc", level=0.95) == pytest.approx((0.1916, 0.9643), abs=1e-4)


def test_variance_of_items_is_delongs() -> None:
    predictions = noisy(300)
    assert predictions.score is not None
    found = interval_of(predictions, "auroc").estimate
    exact = float(delong(predictions.score[None], predictions.target).covariance[0, 0])
    assert found.variance == pytest.approx(exact, rel=0.02)


def test_variance_of_mcc_is_the_jackknifes() -> None:
    rng = np.random.default_rng(0)
    lengths = [int(n) for n in rng.integers(5, 40, 12)]
    true = rng.integers(0, 3, sum(lengths))
    said = np.where(rng.random(sum(lengths)) < 0.6, true, rng.integers(0, 3, sum(lengths)))
    predictions = classes(said.tolist(), true.tolist(), lengths)
    gene = np.repeat(np.arange(12), lengths)
    without = np.array([matthews_corrcoef(true[gene != one], said[gene != one]) for one in range(12)])
    expected = 11 / 12 * ((without - without.mean()) ** 2).sum()
    found = interval_of(predictions, "mcc")
    assert found.estimate.variance == pytest.approx(expected, rel=1e-9)
    assert found.method == "Wilson over 12 items"


def test_variance_of_both_areas_is_about_that_of_resamples() -> None:
    rng = np.random.default_rng(1)
    shared = np.repeat(rng.standard_normal(60), 10)
    target = (rng.standard_normal(600) + shared > 0.5).astype(int)
    said = shared + 1.5 * target + rng.standard_normal(600)
    predictions = scored(said.tolist(), target.tolist(), chromosome=np.repeat(np.arange(60), 10).tolist())
    clusters = as_clusters(predictions, "chromosome")
    drawn = draws_of(predictions, ["auroc", "auprc"], Bootstrap(resamples=500, clusters="chromosome"))
    for metric, found in intervals_of(predictions, ["auroc", "auprc"], clusters).items():
        assert math.sqrt(found.estimate.variance) == pytest.approx(drawn[metric].values.std(), rel=0.15)
        assert found.over_items[1] - found.over_items[0] < found.high - found.low


def test_value_is_that_of_the_metric_and_lies_inside() -> None:
    predictions = noisy()
    assert predictions.score is not None
    for metric in ("auroc", "auprc"):
        found = interval_of(predictions, metric)
        assert found.estimate.value == pytest.approx(
            score(metric, predictions.score, predictions.target).value, abs=1e-12
        )
        assert found.low < found.estimate.value < found.high


def test_perfect_scores_keep_an_interval() -> None:
    few = scored([0.1] * 10 + [0.9] * 10, [0] * 10 + [1] * 10)
    found = interval_of(few, "auroc")
    assert found.high == 1.0
    assert 0.6 < found.low < 0.95
    many = scored([0.1] * 500 + [0.9] * 500, [0] * 500 + [1] * 500)
    assert found.low < interval_of(many, "auroc").low < 1.0
    assert interval_of(classes([0, 1] * 10, [0, 1] * 10, [2] * 10), "mcc").low < 1.0


def in_blocks(block: np.ndarray, seed: int) -> Predictions:
    """Items of one label, whose scores share what their block adds, and few of which are wrong."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, len(block))
    said = 2.6 * target + 0.55 * rng.standard_normal(30)[block] + 0.84 * rng.standard_normal(len(block))
    return scored(said.tolist(), target.tolist(), chromosome=block.tolist())


def test_the_design_effect_is_that_of_the_analysis_of_variance_of_normal_scores() -> None:
    block = np.repeat(np.arange(30), 40)
    predictions = in_blocks(block, 0)
    assert predictions.score is not None
    effects = []
    for label in (0, 1):
        inside = predictions.target == label
        ranks = norm.ppf((rankdata(predictions.score[inside]) - 0.5) / inside.sum())
        groups = [ranks[block[inside] == one] for one in range(30)]
        n, sizes = len(ranks), np.array([len(group) for group in groups])
        size = (n - (sizes**2).sum() / n) / 29
        between = sum(len(group) * (group.mean() - ranks.mean()) ** 2 for group in groups) / 29
        within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (n - 30)
        effects.append(1 + (size - 1) * (between - within) / (between + (size - 1) * within))
    assert predictions.score is not None
    found = spread_of(influences(predictions.score, predictions.target, "auroc"), block, 30, "auroc")
    assert found.between == pytest.approx(1 - 1 / np.mean(effects), rel=1e-9)
    alone = spread_of(influences(predictions.score, predictions.target, "auroc"), np.arange(1200), 1200, "auroc")
    assert alone.between == 0.0


def test_blocks_that_differ_lower_the_low_end_by_halls_correction() -> None:
    block = np.repeat(np.arange(30), 40)
    predictions = in_blocks(block, 0)
    clusters = as_clusters(predictions, "chromosome")
    found = interval_of(predictions, "auroc", clusters)
    one = found.estimate
    assert one.spread is not None
    old, high = wilson(one.value, one.variance, one.degrees_of_freedom, metric="auroc", level=0.95, at_most=one.at_most)
    z = student.ppf(0.975, 29)
    skewed = max(z + 4.5 * (2 * z * z + 1) / 6 / math.sqrt(29), student.ppf(0.975, one.degrees_of_freedom))
    slope = one.value * (1 - one.value)
    logit = math.log(one.value / (1 - one.value)) - skewed * math.sqrt(max(one.variance, slope / one.at_most)) / slope
    weight = one.spread.between**3 * (2 * one.value - 1) ** 2
    assert weight > 0.3
    assert found.low == pytest.approx(old - weight * (old - 1 / (1 + math.exp(-logit))), abs=1e-9)
    assert (found.low < old - 0.002, found.high) == (True, high)
    mixed = np.random.default_rng(1).permutation(block)  # the same errors, but blocks tell nothing
    alike = replace(predictions, columns={"chromosome": pa.array(mixed.tolist())})
    again = interval_of(alike, "auroc", as_clusters(alike, "chromosome")).estimate
    assert again.ends("auroc", 0.95)[0] == pytest.approx(
        wilson(
            again.value, again.variance, again.degrees_of_freedom, metric="auroc", level=0.95, at_most=again.at_most
        )[0],
        abs=1e-3,
    )


def test_the_low_end_of_average_precision_is_not_above_that_of_a_logit_interval() -> None:
    rng = np.random.default_rng(2)
    target = np.repeat([0, 1], 20)
    predictions = scored((rng.standard_normal(40) + 1.2 * target).tolist(), target.tolist())
    found = interval_of(predictions, "auprc")
    one = found.estimate
    assert one.at_most == 60.0  # three per positive
    t = student.ppf(0.975, one.degrees_of_freedom) * (1 + 0.8 / math.sqrt(60))
    slope = one.value * (1 - one.value)
    logit = math.log(one.value / (1 - one.value)) - t * math.sqrt(one.variance) / slope
    old = wilson(one.value, one.variance, one.degrees_of_freedom, metric="auprc", level=0.95, at_most=60)[0]
    assert found.low == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-9)
    assert found.low < old


def test_few_negatives_limit_how_certain_average_precision_is() -> None:
    predictions = scored(np.arange(40.0).tolist(), [0] * 4 + [1] * 36)
    # six per pair of a positive and a negative: 6 * 4 * 36 / 40, and not 3 * 36
    assert interval_of(predictions, "auprc").estimate.at_most == pytest.approx(21.6)


def test_one_cluster_is_undefined_and_few_are_marked() -> None:
    predictions = placed(200, 1, 100)
    alone = interval_of(predictions, "auroc", as_clusters(predictions, "chromosome"))
    assert math.isnan(alone.low)
    assert alone.mark == "undefined"
    assert alone.as_json()["low"] is None
    five = interval_of(placed(200, 5, 100), "auroc", as_clusters(placed(200, 5, 100), "chromosome"))
    assert five.mark == "too few clusters"
    assert five.as_json()["mark"] == "too few clusters"
    rare = scored(np.arange(100.0).tolist(), [1] * 7 + [0] * 93)
    assert interval_of(rare, "auroc").mark == "too few positives"
    assert interval_of(scored(np.arange(100.0).tolist(), [1] * 8 + [0] * 92), "auroc").mark == ""
    assert interval_of(scored([0.5, 0.2], [1, 1]), "auroc").mark == "undefined"
    assert interval_of(scored([], []), "auroc").mark == "undefined"


def test_positives_of_one_cluster_say_nothing_of_others() -> None:
    predictions = scored(np.arange(100.0).tolist(), [0] * 90 + [1] * 10, chromosome=np.repeat(range(10), 10).tolist())
    assert interval_of(predictions, "auroc", as_clusters(predictions, "chromosome")).mark == "undefined"


def test_clusters_fit_the_data() -> None:
    assert choose_clusters(noisy()).by == "item"  # no places
    assert choose_clusters(placed(600, 12, 1000)).by == "chromosome"
    far = choose_clusters(placed(600, 2, 2_000_000))
    assert (far.by, far.reason) == ("item", "the items are more than 1 Mb apart")
    blocks = choose_clusters(placed(6000, 2, 20_000))
    assert (blocks.by, blocks.block_bp, len(blocks)) == ("block", 1_000_000, 120)
    short = choose_clusters(placed(4000, 1, 1_000))
    assert short.block_bp == 100_000  # 40 blocks; 1 Mb would give 4
    genes = classes([0, 1, 1, 0], [0, 1, 0, 0], [3, 1])
    places = {"chromosome": pa.array(["a", "b"]), "start": pa.array([0, 5]), "end": pa.array([9, 9])}
    assert choose_clusters(replace(genes, columns=places)).reason == "each item has several windows"
    assert interval_of(placed(6000, 2, 20_000), "auroc").method == "Wilson over 120 blocks of 1 Mb"


def test_blocks_are_as_long_as_labels_are_correlated() -> None:
    predictions = placed(9000, 2, 20_000)  # two chromosomes of 90 Mb
    rng = np.random.default_rng(0)
    of_region = np.repeat(rng.integers(0, 2, (20, 2)), 225, axis=0).reshape(-1)  # one label per 4.5 Mb
    chosen = choose_clusters(replace(predictions, target=of_region.astype(np.int16)))
    assert chosen.block_bp in {3_000_000, 10_000_000}
    assert len(chosen) >= 18


def test_each_label_has_its_interval_and_one_class_has_none() -> None:
    rng = np.random.default_rng(0)
    target = np.stack([rng.integers(0, 2, 50), np.ones(50, int)], axis=1).astype(np.int16)
    one = noisy(50)
    predictions = replace(one, target=target, score=rng.random((50, 2)).astype(np.float32), label_names=("a", "b"))
    found = interval_of(predictions, "auroc")
    assert found.per_label[0] == pytest.approx((found.low, found.high))  # the mean leaves the other out
    assert np.isnan(found.per_label[1]).all()
    assert found.n_undefined == 1
    body = found.as_json()
    assert body["per_label"][1] == [None, None]  # type: ignore[index]  # a list
    json.dumps(body, allow_nan=False)


def test_mean_over_labels_is_more_certain_than_one_label() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, (400, 9)).astype(np.int16)
    said = (rng.standard_normal((400, 9)) + target).astype(np.float32)
    found = interval_of(replace(noisy(400), target=target, score=said, label_names=tuple("abcdefghi")), "auroc")
    one = found.per_label[0][1] - found.per_label[0][0]
    assert (found.high - found.low) / one == pytest.approx(1 / 3, rel=0.25)


def test_folds_are_clustered_apart_and_their_variation_counts() -> None:
    alike = [noisy(200, seed) for seed in range(4)]
    columns = {"fold": pa.array(np.repeat(range(1, 5), 200))}

    def joined(folds: list[Predictions]) -> Predictions:
        target = np.concatenate([one.target for one in folds])
        said = np.concatenate([one.score for one in folds if one.score is not None])
        return replace(scored(said.tolist(), target.tolist()), columns=columns)

    within = interval_of(joined(alike), "auroc").estimate
    assert within.value == pytest.approx(np.mean(within.of_folds))
    worse = [replace(alike[0], score=-alike[0].score), *alike[1:]]  # type: ignore[operator]  # scores
    between = interval_of(joined(worse), "auroc").estimate
    assert between.degrees_of_freedom == 3.0
    shared = 1 + 2 / 3  # other rows of training would move all four folds
    assert between.variance == pytest.approx(np.var(between.of_folds, ddof=1) / 4 * shared)


def test_records_hold_clusters_and_the_interval_over_items() -> None:
    predictions = placed(6000, 2, 20_000)
    entry = with_intervals({"auroc": {"value": 0.5}, "mcc": {"value": 0.1}}, predictions)
    assert entry["mcc"] == {"value": 0.1}
    interval = entry["auroc"]["interval"]  # type: ignore[index,call-overload]  # an object
    assert interval["rules"] == RULES  # type: ignore[index,call-overload]
    assert interval["n_clusters"] == 120  # type: ignore[index,call-overload]
    assert interval["over_items"]["low"] >= interval["low"]  # type: ignore[index,call-overload,operator]
    assert "correlation below 0.05" in interval["clusters_reason"]  # type: ignore[index,call-overload,operator]


@pytest.mark.parametrize(
    ("metric", "level", "message"),
    [
        ("mcc", 0.95, "mcc needs classes, but these predictions hold scores"),
        ("pearsonr", 0.95, "metric 'pearsonr' has no interval; known are: auprc, auroc, gene_structure, mcc"),
        ("auroc", 1.0, "level is 1.0; expected a fraction between 0 and 1"),
    ],
)
def test_what_has_no_interval_is_refused(metric: str, level: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        interval_of(noisy(), metric, level=level)


@pytest.mark.parametrize("decimals", [1, 8])
def test_bias_of_average_precision_is_that_of_leaving_out_each_item(decimals: int) -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(1, 1, 9).round(decimals), rng.normal(0, 1, 14).round(decimals)
    score, true = np.concatenate([positive, negative]), np.repeat([1, 0], [9, 14])
    n, value = len(true), average_precision_score(true, score)
    without = [average_precision_score(np.delete(true, i), np.delete(score, i)) for i in range(n)]
    found = influences(score, true, "auprc")
    assert found.value == pytest.approx(value)
    assert found.bias == pytest.approx((n - 1) * (np.mean(without) - value))
    assert influences(score, true, "auroc").bias == 0.0
    assert influences(np.arange(4.0), np.array([0, 0, 1, 1]), "auprc").bias == 0.0, "of perfect scores"
