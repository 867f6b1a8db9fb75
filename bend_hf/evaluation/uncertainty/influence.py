"""How much each item moves a score: the variance of MCC, AUROC and AUPRC follows from it, whatever is drawn together.

The influence of an item is the derivative of the score by the item's weight. Sums of influences over clusters give the
variance of DeLong (1988) for AUROC of independent items and of Obuchowski (1997, Biometrics 53:567) for clusters. Each
cluster is divided by one minus its fraction of the items, as the jackknife does (Bell and McCaffrey's CR3): a large
cluster pulls the score towards itself.

>>> found = influences(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]), "auroc")
>>> found.value, found.of_positive.round(3).tolist()
(0.75, [0.0, 0.0, -0.125, 0.125])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.types import Ints

Doubles = NDArray[np.float64]

# Independent answers per item at the edge of the range. Scores of normal distributions have about 4 per pair of a
# positive and a negative for AUROC; for average precision about 3 per positive, or 6 per pair if there are fewer
# negatives (benchmarks/coverage.py).
INFORMATION: Final = {"auroc": 4.0, "auprc": 3.0}


@dataclass(frozen=True, kw_only=True)
class Influences:
    """Influence of each window on the score of one label.

    Attributes:
        value: The score; nan if it is not defined.
        bias: By how much the score of so few windows is too high on average, by the jackknife; 0 for AUROC.
        of_positive: Influence of the positive windows, 0 elsewhere, shape (windows,).
        of_negative: Influence of the negative windows, 0 elsewhere, shape (windows,).
        positive: Which windows are positive, bool, shape (windows,).
        negative: Which windows are negative, bool, shape (windows,).
        score: Score of each window, shape (windows,).
    """

    value: float
    bias: float = 0.0
    of_positive: Doubles
    of_negative: Doubles
    positive: NDArray[np.bool_]
    negative: NDArray[np.bool_]
    score: NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What clusters say of the variance of a score.

    Attributes:
        influence: Influence of each cluster, shape (clusters,); it sums to 0.
        adjusted: The same, divided by one minus the fraction of the cluster, shape (clusters,).
        share: Fraction of the score that each cluster carries, shape (clusters,); it sums to 1.
        parts: Sums of squared influence of positive and of negative items.
        effective: Effective number of clusters of positive and of negative items.
        at_most: The score is not more certain than this many independent answers.
        at_least: The same if each cluster counts as one answer, for scores without any error.
        n_clusters: Number of clusters with scored windows.
        between: Fraction of what is uncertain in the ranks of the items that is due to clusters, 0 to 1.
    """

    influence: Doubles
    adjusted: Doubles
    share: Doubles
    parts: tuple[float, float]
    effective: tuple[float, float]
    at_most: float
    at_least: float
    n_clusters: int
    between: float = 0.0

    @property
    def variance(self) -> float:
        """Variance of the score."""
        return _jackknife(self.adjusted)

    @property
    def degrees_of_freedom(self) -> float:
        """Degrees of freedom of the variance: Welch and Satterthwaite's, or fewer if few clusters dominate."""
        positive, negative = self.parts
        welch = (positive + negative) ** 2
        of_parts = sum(part**2 / max(n - 1, 1.0) for part, n in zip(self.parts, self.effective, strict=True))
        limits = [self.n_clusters - 1.0, concentration(self.adjusted)]
        limits += [welch / of_parts] if of_parts > 0 else [min(self.effective) - 1]
        return max(1.0, min(limits))


def concentration(adjusted: Doubles) -> float:
    """Degrees of freedom of a sum of squares by its kurtosis: n - 1 for n normal terms, fewer if some dominate."""
    fourth = float((adjusted**4).sum())
    return 3 * float((adjusted**2).sum()) ** 2 / fourth - 1 if fourth > 0 else float("inf")


def influences(score: NDArray[Any], true: NDArray[Any], metric: str) -> Influences:
    """Compute the influence of each window on an area.

    Args:
        score: Scores, higher for positive, shape (windows,).
        true: 0, 1, or -100 if a window is not scored, shape (windows,).
        metric: ``auroc`` or ``auprc``.
    """
    positive, negative = true == 1, true == 0
    of_positive, of_negative = np.zeros(len(true)), np.zeros(len(true))
    value, bias = float("nan"), 0.0
    if positive.any() and negative.any():
        value, bias, of_positive[positive], of_negative[negative] = _AREAS[metric](score[positive], score[negative])
    return Influences(
        value=value,
        bias=bias,
        of_positive=of_positive,
        of_negative=of_negative,
        positive=positive,
        negative=negative,
        score=score,
    )


def spread_of(found: Influences, cluster: Ints, n_clusters: int, metric: str) -> Spread:
    """Sum the influences on an area over clusters.

    Args:
        found: Influence of each window.
        cluster: Cluster of each window, shape (windows,).
        n_clusters: Number of clusters.
        metric: ``auroc`` or ``auprc``.
    """
    of_positive: Doubles = np.bincount(cluster, found.of_positive, n_clusters).astype(np.float64)
    of_negative: Doubles = np.bincount(cluster, found.of_negative, n_clusters).astype(np.float64)
    n_positive = np.bincount(cluster[found.positive], minlength=n_clusters)
    n_negative = np.bincount(cluster[found.negative], minlength=n_clusters)
    positive, negative = _shares(n_positive), _shares(n_negative)
    influence = of_positive + of_negative
    both = ((n_positive, n_negative), (n_positive > 0, n_negative > 0))
    if metric == "auroc":
        adjusted = _divided(of_positive, positive) + _divided(of_negative, negative)
        share = (positive + negative) / 2
        sizes = [harmonic(a.sum(), b.sum()) for a, b in both]
    else:
        adjusted, share = _divided(influence, positive), positive
        sizes = [min(float(a.sum()), 2 * harmonic(a.sum(), b.sum())) for a, b in both]
    return Spread(
        influence=influence,
        adjusted=adjusted,
        share=share,
        parts=(float((of_positive**2).sum()), float((of_negative**2).sum())),
        effective=(_effective(positive), _effective(negative)),
        at_most=INFORMATION[metric] * sizes[0],
        at_least=INFORMATION[metric] * sizes[1],
        n_clusters=int((n_positive + n_negative > 0).sum()),
        between=_between(found, cluster, n_positive, n_negative),
    )


def _between(found: Influences, cluster: Ints, n_positive: Ints, n_negative: Ints) -> float:
    """One minus the inverse of the design effect of ranks (Kish 1965), the mean of both classes.

    Errors are few and lie in few clusters, but all items have ranks: they tell of clusters that differ, although the
    errors of these clusters were not drawn.

    Args:
        found: Score of each window.
        cluster: Cluster of each window, shape (windows,).
        n_positive: Positive windows of each cluster, shape (clusters,).
        n_negative: Negative windows of each cluster, shape (clusters,).
    """
    effects = [
        _design_effect(found.score[inside], cluster[inside], sizes)
        for inside, sizes in ((found.positive, n_positive), (found.negative, n_negative))
    ]
    return 1 - 2 / sum(effects)


def _design_effect(score: NDArray[Any], cluster: Ints, sizes: Ints) -> float:
    """How many times the variance of mean ranks is that of as many independent items; 1 or more.

    The intraclass correlation of normal scores is that of the analysis of variance (Donner 1986, Int. Stat. Rev.
    54:67).

    Args:
        score: Score of each window of one class, shape (windows,).
        cluster: Cluster of each of them, shape (windows,).
        sizes: Number of them in each cluster, shape (clusters,).
    """
    n, n_clusters = len(score), int((sizes > 0).sum())
    if n_clusters < 2 or n <= n_clusters:
        return 1.0
    rank = _normal_scores(score)
    size = (n - float((sizes.astype(np.float64) ** 2).sum()) / n) / (n_clusters - 1)
    sums = np.bincount(cluster, rank, len(sizes))
    of_means = float((sums**2 / np.maximum(sizes, 1)).sum())
    between = (of_means - float(rank.sum()) ** 2 / n) / (n_clusters - 1)
    within = (float((rank**2).sum()) - of_means) / (n - n_clusters)
    total = between + (size - 1) * within
    correlation = (between - within) / total if total > 0 else 0.0
    return 1 + max(size - 1, 0.0) * min(max(correlation, 0.0), 1.0)


def spread_of_mcc(counts: Doubles, n_classes: int) -> tuple[float, Spread]:
    """Compute MCC and the influence of each cluster by leaving out one cluster at a time.

    Args:
        counts: Confusion matrix of each cluster, float64, shape (clusters, classes * classes), references first.
        n_classes: Number of classes.
    """
    from bend_hf.evaluation.uncertainty.fast_metrics import mcc_of_counts

    total = counts.sum(axis=0)
    value = float(mcc_of_counts(total[:, None], n_classes)[0])
    without = mcc_of_counts((total - counts).T, n_classes)
    return value, spread_by_leaving_out(value, without, counts.sum(axis=1))


def spread_by_leaving_out(value: float, without: Doubles, sizes: Doubles) -> Spread:
    """Compute the influence of each cluster on a score from the scores without it (the jackknife).

    Args:
        value: The score.
        without: The score without each cluster, shape (clusters,); nan if nothing is left.
        sizes: What each cluster holds of what the score is taken of, shape (clusters,).
    """
    n = len(without)
    share = _shares(sizes)
    moved = np.where(np.isnan(without), 0.0, value - without)
    adjusted = moved - moved.mean() if n else moved
    influence = adjusted * (1 - share)
    influence = influence - influence.mean() if n else influence
    squares = float((influence**2).sum())
    effective = _effective(share)
    return Spread(
        influence=influence,
        adjusted=adjusted,
        share=share,
        parts=(squares, 0.0),
        effective=(effective, effective),
        at_most=float("inf"),
        at_least=float((share > 0).sum()),
        n_clusters=int((share > 0).sum()),
    )


def mean_spread(spreads: Sequence[Spread]) -> Spread:
    """Average the spreads of several labels or folds on the same clusters."""
    influence = np.mean([one.influence for one in spreads], axis=0)
    adjusted = np.mean([one.adjusted for one in spreads], axis=0)
    parts = np.mean([one.parts for one in spreads], axis=0)
    effective = np.mean([one.effective for one in spreads], axis=0)
    return Spread(
        influence=influence,
        adjusted=adjusted,
        share=np.mean([one.share for one in spreads], axis=0),
        parts=(float(parts[0]), float(parts[1])),
        effective=(float(effective[0]), float(effective[1])),
        at_most=float(sum(one.at_most for one in spreads)),
        at_least=float(np.mean([one.at_least for one in spreads])),
        n_clusters=max(one.n_clusters for one in spreads),
        between=float(np.mean([one.between for one in spreads])),
    )


def harmonic(n_positive: float, n_negative: float) -> float:
    """Give the number of pairs of a positive and a negative item that count as independent."""
    return float(n_positive * n_negative / (n_positive + n_negative)) if n_positive + n_negative else 0.0


def _auroc(positive: NDArray[Any], negative: NDArray[Any]) -> tuple[float, float, Doubles, Doubles]:
    up, down = np.sort(positive), np.sort(negative)
    won = _midranks(down, positive) / len(negative)
    lost = 1 - _midranks(up, negative) / len(positive)
    value = float(won.mean())
    return value, 0.0, (won - value) / len(positive), (lost - value) / len(negative)


def _normal_scores(values: NDArray[Any]) -> Doubles:
    """Normal quantiles of the ranks of values; equal values have equal ones."""
    from scipy.special import ndtri  # type: ignore[import-untyped]  # SciPy has no type hints

    scores: Doubles = ndtri(_midranks(np.sort(values), values) / len(values))
    return scores


def _midranks(ordered: NDArray[Any], values: NDArray[Any]) -> Doubles:
    ranks: Doubles = (ordered.searchsorted(values, "left") + ordered.searchsorted(values, "right")) / 2
    return ranks


def _auprc(positive: NDArray[Any], negative: NDArray[Any]) -> tuple[float, float, Doubles, Doubles]:
    threshold, rank, count = np.unique(positive, return_inverse=True, return_counts=True)
    right = count[::-1].cumsum()[::-1].astype(np.float64)
    wrong = len(negative) - np.sort(negative).searchsorted(threshold, "left")
    precision = right / (right + wrong)
    n = len(positive)
    value = float((count * precision).sum() / n)
    bias = _bias_of_auprc(count, right, wrong, len(negative))
    gained = np.cumsum(count * wrong / (right + wrong) ** 2) / n  # by one more positive at or above each threshold
    lost = np.concatenate([[0.0], np.cumsum(count * right / (right + wrong) ** 2) / n])
    return value, bias, (precision[rank] - value) / n + gained[rank], -lost[threshold.searchsorted(negative, "right")]


def _bias_of_auprc(count: Ints, right: Doubles, wrong: Ints, n_negative: int) -> float:
    """Estimate the bias of average precision by leaving out each item in turn (Quenouille's jackknife), in one pass.

    Args:
        count: Positives at each threshold, shape (thresholds,).
        right: Positives at or above it.
        wrong: Negatives at or above it.
        n_negative: Negatives.
    """
    n = int(count.sum())
    if n == 1:
        return 0.0
    precision, above = right / (right + wrong), right + wrong
    # without a negative above it, the precision of a threshold rises; without a positive, it falls
    by_negative = float((count * wrong * right / (np.maximum(above - 1, 1) * above)).sum()) / n
    fallen = (right - 1) ** 2 / np.maximum(above - 1, 1) + (n - right) * precision
    by_positive = float((count * fallen).sum()) / (n - 1) - float((count * precision).sum())
    n_items = n + n_negative
    return (n_items - 1) / n_items * (by_negative + by_positive)


_AREAS: Final = {"auroc": _auroc, "auprc": _auprc}


def _shares(count: NDArray[Any]) -> Doubles:
    total = count.sum()
    shares: Doubles = count / total if total else np.zeros(len(count))
    return shares


def _divided(influence: Doubles, share: Doubles) -> Doubles:
    """Influence over one minus the share; unchanged if one cluster holds everything."""
    left = 1 - share
    divided: Doubles = np.divide(influence, left, out=influence.copy(), where=left > 0)
    return divided


def _effective(share: Doubles) -> float:
    squares = float((share**2).sum())
    return 1 / squares if squares > 0 else 0.0


def _jackknife(adjusted: Doubles) -> float:
    n = len(adjusted)
    return float((n - 1) / n * (adjusted**2).sum()) if n else float("nan")
