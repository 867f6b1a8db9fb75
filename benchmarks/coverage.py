"""Measure how often intervals cover the truth, and how often equally good models are called different.

    python -m benchmarks.coverage
    python -m benchmarks.coverage --simulations 100 --out coverage.json
    python -m benchmarks.coverage --only "auprc|folds"
    python -m benchmarks.coverage --only "paired test|retrained"

Writes ``benchmarks/results/coverage.json``. Each row is a kind of data whose true score is known. The intervals are
those of result records; next to them stand percentiles of a bootstrap over items, in fewer simulations.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap, draws_of
from bend_hf.evaluation.uncertainty.clusters import Clusters
from bend_hf.evaluation.uncertainty.comparison import compare, paired, trainings_of
from bend_hf.evaluation.uncertainty.fast_metrics import mcc_of_counts
from bend_hf.evaluation.uncertainty.intervals import estimate_of, interval_of
from bend_hf.files import write_text

RESULTS = Path(__file__).resolve().parent / "results" / "coverage.json"
N_SIMULATIONS = 1000
N_BOOTSTRAPS, N_RESAMPLES = 200, 400
TARGET = (0.93, 0.97)
NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind of data.

    Attributes:
        metric: ``auroc``, ``auprc`` or ``mcc``.
        clusters: Number of clusters: blocks, genes, or items that stand alone.
        size: Items per cluster; nucleotides per gene for MCC.
        prevalence: Fraction of positives.
        auroc: True AUROC; for MCC, the accuracy of the median gene.
        correlation: Of labels and scores within a cluster; for MCC, the deviation of the genes' log odds.
        unequal: Whether the sizes of clusters vary as in a log-normal distribution.
        tails: Degrees of freedom of Student's distribution of what blocks add to scores; 0 for the normal one.
    """

    metric: str
    clusters: int
    size: int = 1
    prevalence: float = 0.5
    auroc: float = 0.8
    correlation: float = 0.0
    unequal: bool = False
    tails: int = 0

    @property
    def name(self) -> str:
        """The cell in words."""
        if self.metric == "mcc":
            return f"{self.clusters} genes, accuracy {self.auroc:g} ± {self.correlation:g} (log odds)"
        what = f"{self.clusters * self.size:,} items, {self.prevalence:.0%} positive, AUROC {self.auroc:g}"
        if self.size == 1:
            return what
        sizes = "about " if self.unequal else ""
        tails = f", heavy tails (t with {self.tails})" if self.tails else ""
        return f"{what}, {self.clusters} blocks of {sizes}{self.size}, correlation {self.correlation:g}{tails}"


def _areas(metric: str) -> list[Cell]:
    cell = partial(Cell, metric=metric)
    return [
        cell(clusters=40, auroc=0.98),
        cell(clusters=40, auroc=0.8),
        cell(clusters=20, auroc=0.65),
        cell(clusters=40, auroc=0.7),
        cell(clusters=80, prevalence=0.8, auroc=0.8),
        cell(clusters=40, prevalence=0.25, auroc=0.9),
        cell(clusters=40, prevalence=0.1, auroc=0.8),
        cell(clusters=200, prevalence=0.02, auroc=0.9),
        cell(clusters=200, prevalence=0.05, auroc=0.9),
        cell(clusters=200, prevalence=0.1, auroc=0.8),
        cell(clusters=1000, prevalence=0.01, auroc=0.96),
        cell(clusters=1000, prevalence=0.1, auroc=0.9),
        cell(clusters=2000, auroc=0.98),
        cell(clusters=30, size=20, correlation=0.3),
        cell(clusters=30, size=20, prevalence=0.2, auroc=0.97, correlation=0.3),
        cell(clusters=60, size=20, prevalence=0.1, correlation=0.3, unequal=True),
        cell(clusters=60, size=20, prevalence=0.3, correlation=0.05, unequal=True),
        cell(clusters=10, size=50, correlation=0.3),
        cell(clusters=22, size=50, prevalence=0.3, correlation=0.1, unequal=True),
        cell(clusters=22, size=100, auroc=0.97, correlation=0.3),
        cell(clusters=10, size=100, auroc=0.95, correlation=0.3),
        cell(clusters=15, size=200, auroc=0.95, correlation=0.5),
        cell(clusters=22, size=100, prevalence=0.2, auroc=0.9, correlation=0.3),
        cell(clusters=22, size=200, auroc=0.97, correlation=0.1),
        cell(clusters=30, size=100, prevalence=0.1, auroc=0.97, correlation=0.3, unequal=True),
        cell(clusters=40, size=50, auroc=0.99, correlation=0.3),
        cell(clusters=30, size=50, auroc=0.9, correlation=0.3, tails=4),
        cell(clusters=30, size=50, auroc=0.97, correlation=0.3, tails=4),
    ]


CELLS: tuple[Cell, ...] = (
    *_areas("auroc"),
    *_areas("auprc"),
    *(
        Cell(metric="mcc", clusters=n, size=1800, auroc=accuracy, correlation=spread)
        for n in (10, 25, 60, 200)
        for accuracy, spread in ((0.7, 1.0), (0.3, 1.0), (0.9, 0.7))
    ),
)


def simulate(cell: Cell, rng: np.random.Generator) -> tuple[Predictions, Clusters]:
    """Draw predictions of a cell, and what counts as one observation."""
    n = cell.clusters
    if cell.metric == "mcc":
        true, predicted, gene = genes(cell, n, rng)
        return _classes(true, predicted, np.bincount(gene, minlength=n)), _alone(n)
    block = _blocks(cell, rng)
    total = len(block)
    of_label, of_score = rng.standard_normal(n), _block_effects(cell, n, rng)
    within, shared = math.sqrt(1 - cell.correlation), math.sqrt(cell.correlation)
    label = shared * of_label[block] + within * rng.standard_normal(total) > NORMAL.inv_cdf(1 - cell.prevalence)
    score = _shift(cell) * label + shared * of_score[block] + within * rng.standard_normal(total)
    return _scores(label, score), _alone(n) if cell.size == 1 else _clustered(block)


def truth(cell: Cell) -> float:
    """The score of infinitely many items in infinitely many blocks."""
    if cell.tails:
        return _true_with_tails(cell)
    if cell.metric == "auroc":
        return cell.auroc
    return _true_auprc(cell.prevalence, _shift(cell)) if cell.metric == "auprc" else _true_mcc(cell)


@cache
def _true_auprc(prevalence: float, shift: float) -> float:
    x = np.linspace(-8.0, 8.0 + shift, 20_001)
    above = np.array([1 - NORMAL.cdf(one) for one in x])
    right = prevalence * np.array([1 - NORMAL.cdf(one - shift) for one in x])
    density = np.exp(-((x - shift) ** 2) / 2) / math.sqrt(2 * math.pi)
    precision = right / np.maximum(right + (1 - prevalence) * above, 1e-300)
    return float(np.trapezoid(precision * density, x))


def _block_effects(cell: Cell, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw what blocks add to scores, with variance 1."""
    if not cell.tails:
        return rng.standard_normal(n)
    return rng.standard_t(cell.tails, n) * math.sqrt((cell.tails - 2) / cell.tails)


@cache
def _true_with_tails(cell: Cell) -> float:
    many = replace(cell, clusters=1_000_000, size=1)  # each item in a block of its own
    predictions, alone = simulate(many, np.random.default_rng(9))
    return estimate_of(predictions, cell.metric, alone).value


@cache
def _true_mcc(cell: Cell) -> float:
    true, predicted, _ = genes(cell, 4000, np.random.default_rng(9))
    counts = np.bincount(true * 4 + predicted, minlength=16).astype(np.float64)
    return float(mcc_of_counts(counts[:, None], 4)[0])


def genes(cell: Cell, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
    """Draw labels and predictions of genes with four classes; each gene has its composition and its accuracy."""
    frequency = np.array([0.55, 0.3, 0.1, 0.05])
    lengths = np.maximum(50, rng.lognormal(math.log(cell.size), 0.8, n) / 8).astype(np.int64)
    gene = np.repeat(np.arange(n), lengths)
    bounds = np.cumsum(rng.dirichlet(frequency * 8, n), axis=1)
    true = (rng.random(len(gene))[:, None] > bounds[gene, :-1]).sum(axis=1)
    odds = math.log(cell.auroc / (1 - cell.auroc)) + cell.correlation * rng.standard_normal(n)
    right = rng.random(len(gene)) < (1 / (1 + np.exp(-odds)))[gene]
    return true, np.where(right, true, rng.choice(4, len(gene), p=frequency)), gene


@dataclass(frozen=True, kw_only=True)
class Folded:
    """Heads trained in folds, as BEND's enhancer annotation: ridge regressions on rows drawn from one population.

    Attributes:
        metric: ``auroc`` or ``auprc``.
        rows: Rows in all folds.
        width: Features.
        folds: Number of folds.
    """

    metric: str
    rows: int
    width: int
    folds: int = 10

    @property
    def name(self) -> str:
        """The case in words."""
        return f"{self.folds} folds, {self.rows:,} rows, {self.width} features"

    @property
    def weights(self) -> NDArray[np.float64]:
        """How the label depends on the features, shape (features,)."""
        return np.random.default_rng(1).standard_normal(self.width) / math.sqrt(self.width)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Draw rows and their labels."""
        rows = rng.standard_normal((n, self.width))
        return rows, rows @ self.weights + rng.standard_normal(n) > 0

    def fit(self, rows: NDArray[np.float64], label: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Train a ridge regression."""
        solved: NDArray[np.float64] = np.linalg.solve(rows.T @ rows + np.eye(self.width), rows.T @ (label - 0.5))
        return solved

    def simulate(self, rng: np.random.Generator) -> Predictions:
        """Leave out one fold for validation, predict one and train on the others, in turn."""
        rows, label = self.draw(self.rows, rng)
        fold = np.arange(self.rows) % self.folds
        score = np.zeros(self.rows)
        for test in range(self.folds):
            train = (fold != test) & (fold != (test + 1) % self.folds)
            score[fold == test] = rows[fold == test] @ self.fit(rows[train], label[train])
        return replace(_scores(label, score), columns={"fold": pa.array(fold + 1)})

    def truth(self) -> float:
        """The mean score, on many rows, of heads that are trained on as many rows as those of a fold."""
        rng = np.random.default_rng(2)
        rows, label = self.draw(5_000, rng)
        n_train = self.rows * (self.folds - 2) // self.folds
        scored = (_scores(label, rows @ self.fit(*self.draw(n_train, rng))) for _ in range(_N_TRAININGS))
        return float(np.mean([estimate_of(one, self.metric, _alone(len(label))).value for one in scored]))


_N_TRAININGS = 200
FOLDED = tuple(
    Folded(metric=metric, rows=rows, width=width, folds=folds)
    for metric in ("auroc", "auprc")
    for rows, width, folds in ((100, 10, 10), (200, 20, 5), (200, 20, 10), (200, 50, 10), (1000, 50, 10))
)


def folded_coverage(case: Folded, n_simulations: int, seed: int = 0) -> dict[str, Any]:
    """Simulate heads in folds: how often the interval covers the mean score of such heads."""
    rng, true, covered, widths = np.random.default_rng(seed), case.truth(), 0, []
    for _ in range(n_simulations):
        found = interval_of(case.simulate(rng), case.metric, _alone(case.rows))
        covered += found.low <= true <= found.high
        widths.append(found.high - found.low)
    share = covered / n_simulations
    return {
        "metric": case.metric,
        "name": case.name,
        "truth": true,
        "simulations": n_simulations,
        "coverage": share,
        "width": float(np.mean(widths)),
        "marked": 0.0,
        "undefined": 0.0,
        "percentile_coverage": None,
        "reason": "" if TARGET[0] <= share <= TARGET[1] else _FOLDS_REASONS[share > TARGET[1]],
    }


_FOLDS_REASONS = {
    True: "wider: the allowance for other training rows is the same for all heads",
    False: "narrower: folds share training rows, so their variation understates that over other training rows",
}


def coverage(cell: Cell, n_simulations: int, seed: int = 0, *, bootstraps: int = N_BOOTSTRAPS) -> dict[str, Any]:
    """Simulate a cell: how often the intervals cover, their mean width, and the fraction that is marked."""
    rng = np.random.default_rng(seed)
    true, covered, widths, marked, undefined = truth(cell), 0, [], 0, 0
    for _ in range(n_simulations):
        predictions, clusters = simulate(cell, rng)
        found = interval_of(predictions, cell.metric, clusters)
        if math.isnan(found.low):
            undefined += 1
            continue
        covered += found.low <= true <= found.high
        widths.append(found.high - found.low)
        marked += bool(found.mark)
    n = n_simulations - undefined
    return {
        "metric": cell.metric,
        "name": cell.name,
        "truth": true,
        "simulations": n,
        "coverage": covered / n,
        "width": float(np.mean(widths)),
        "marked": marked / n,
        "undefined": undefined / n_simulations,
        "percentile_coverage": _percentile_coverage(cell, min(n_simulations, bootstraps), seed),
        "reason": _reason(cell, covered / n, marked / n),
    }


def _percentile_coverage(cell: Cell, n_simulations: int, seed: int) -> float | None:
    """How often percentiles of a bootstrap over items cover."""
    rng, true, covered, n = np.random.default_rng(seed), truth(cell), 0, 0
    for _ in range(n_simulations):
        predictions, _ = simulate(cell, rng)
        values = draws_of(predictions, [cell.metric], Bootstrap(resamples=N_RESAMPLES, clusters="item"))[
            cell.metric
        ].values
        values = values[~np.isnan(values)]
        if len(values):
            low, high = np.quantile(values, [0.025, 0.975])
            covered, n = covered + int(low <= true <= high), n + 1
    return covered / n if n else None


def _reason(cell: Cell, covered: float, marked: float) -> str:
    if covered > TARGET[1] and cell.size > 1 and cell.metric != "mcc":
        return "wider: allowances for few errors, and for blocks that were not drawn"
    if covered > TARGET[1]:
        return "wider: the variance is kept from vanishing with few errors"
    if covered < TARGET[0]:
        if marked > 1 / 2:
            return "narrower, and marked as too few"
        if cell.size > 1:
            return "narrower: nearly all errors are in a few blocks, which a draw may miss"
        return "narrower: the scores of few items are skewed"
    return ""


def rejections(metric: str, n_clusters: int, effect: float, n_simulations: int, seed: int = 0) -> dict[str, Any]:
    """Compare two models on blocks of unequal size: how often p is below 0.05."""
    rng = np.random.default_rng(seed)
    base = Cell(metric="auroc", clusters=n_clusters, size=30, prevalence=0.3, correlation=0.3, unequal=True)
    found, differences = [], []
    for _ in range(n_simulations):
        block = _blocks(base, rng)
        shared, within, n = math.sqrt(0.3), math.sqrt(0.7), len(block)
        label = shared * rng.standard_normal(n_clusters)[block] + within * rng.standard_normal(n) > NORMAL.inv_cdf(0.7)
        hard = rng.standard_normal(n)
        clusters = _clustered(block)
        one, other = (
            1.2 * label
            + size * label
            + 0.7 * (hard + shared * rng.standard_normal(n_clusters)[block] + within * rng.standard_normal(n))
            for size in (effect, 0.0)
        )
        pair = [_scores(label, one), _scores(label, other)]
        if metric == "mcc":
            pair = [_classes(label, said > 1.2, np.ones(n, np.int64)) for said in (one, other)]
        result = paired(("a", "b"), *(trainings_of([said], metric, clusters) for said in pair))
        found.append(result.p < 0.05)
        differences.append(result.difference)
    return {
        "metric": metric,
        "clusters": n_clusters,
        "effect": effect,
        "difference": float(np.nanmean(differences)),
        "rejected": float(np.mean(found)),
        "simulations": n_simulations,
    }


def retrained(n_trainings: int, n_simulations: int, seed: int = 0) -> dict[str, Any]:
    """Train the same ridge on resampled rows, twice: how often one is called better."""
    rng = np.random.default_rng(seed)
    n_rows, width, n_test = 80, 20, 300
    weights, better = rng.standard_normal(width) / 3, 0
    for _ in range(n_simulations):
        rows, test = rng.standard_normal((n_rows, width)), rng.standard_normal((n_test, width))
        label = (rows @ weights + rng.standard_normal(n_rows) > 0) - 0.5
        target = test @ weights + rng.standard_normal(n_test) > 0
        trained: dict[str, list[Predictions]] = {"a": [], "b": []}
        for name in ("a", "b") * n_trainings:
            drawn = rng.integers(0, n_rows, n_rows)
            fitted = np.linalg.solve(rows[drawn].T @ rows[drawn] + np.eye(width), rows[drawn].T @ label[drawn])
            trained[name].append(_scores(target, test @ fitted))
        better += compare(trained, "auroc")[0].p < 0.05
    return {"trainings": n_trainings, "called_better": better / n_simulations, "simulations": n_simulations}


def _shift(cell: Cell) -> float:
    return math.sqrt(2) * NORMAL.inv_cdf(cell.auroc)


def _blocks(cell: Cell, rng: np.random.Generator) -> NDArray[np.int64]:
    sizes = np.full(cell.clusters, cell.size)
    if cell.unequal:
        sizes = np.maximum(2, rng.lognormal(math.log(cell.size) - 0.32, 0.8, cell.clusters)).astype(np.int64)
    return np.repeat(np.arange(cell.clusters), sizes)


def _alone(n: int) -> Clusters:
    return Clusters(of_item=np.arange(n, dtype=np.int64), by="item", block_bp=None, reason="simulated")


def _clustered(block: NDArray[np.int64]) -> Clusters:
    return Clusters(of_item=block, by="block", block_bp=1_000_000, reason="simulated")


def _scores(label: NDArray[Any], score: NDArray[Any]) -> Predictions:
    n = len(label)
    return Predictions(
        item=np.arange(n),
        windows=np.arange(n + 1),
        target=label.astype(np.int16),
        score=score.astype(np.float32),
        predicted=None,
        label_names=("no", "yes"),
    )


def _classes(true: NDArray[Any], predicted: NDArray[Any], lengths: NDArray[Any]) -> Predictions:
    return Predictions(
        item=np.arange(len(lengths)),
        windows=np.concatenate([[0], np.cumsum(lengths)]),
        target=true.astype(np.int16),
        score=None,
        predicted=predicted.astype(np.int16),
        label_names=("a", "b", "c", "d"),
    )


def run(n_simulations: int, workers: int = 2, before: dict[str, Any] | None = None, only: str = "") -> dict[str, Any]:
    """Run the simulations.

    Args:
        n_simulations: Simulations per row.
        workers: Processes.
        before: Earlier results; with ``only``, their other rows stay.
        only: Run only the rows whose name this regular expression matches: the metric and the kind of data, ``paired
            test``, or ``retrained``.
    """
    before = before if before is not None and only else {}
    cases = [case for case in (*CELLS, *FOLDED) if re.search(only, f"{case.metric} {case.name}")]
    pairs = [case for case in PAIRS if re.search(only, f"paired test, {case[0]}, {case[1]} clusters")]
    trainings = [n for n in TRAININGS if re.search(only, f"retrained, {n} trainings")]
    with ProcessPoolExecutor(workers) as pool:
        covered = _shown(pool.map(partial(_covered, n_simulations), cases))
        tests = _shown(pool.map(partial(_rejections, n_simulations), pairs))
        again = _shown(pool.map(partial(_retrained, n_simulations), trainings))
    return {
        "simulations": before.get("simulations", n_simulations),
        "coverage": _merged(before.get("coverage", []), covered, ("metric", "name"), _ORDER),
        "tests": _merged(before.get("tests", []), tests, ("metric", "clusters", "effect"), PAIRS),
        "retrained": _merged(before.get("retrained", []), again, ("trainings",), [(n,) for n in TRAININGS]),
    }


PAIRS = [(m, n, e) for m in ("auroc", "auprc", "mcc") for n in (2, 4, 6, 10, 16, 40) for e in (0.0, 0.4)]
TRAININGS = (1, 3)
_ORDER = [(case.metric, case.name) for case in (*CELLS, *FOLDED)]


def _covered(n_simulations: int, case: Cell | Folded) -> dict[str, Any]:
    return coverage(case, n_simulations) if isinstance(case, Cell) else folded_coverage(case, n_simulations)


def _merged(
    before: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
    order: Sequence[tuple[object, ...]],
) -> list[dict[str, Any]]:
    """Replace the rows of the same data, and order all as a whole run does.

    Args:
        before: Earlier rows.
        rows: New ones.
        names: What tells rows apart.
        order: The values of these names, in the order of a whole run.
    """
    found = {tuple(row[name] for name in names): row for row in (*before, *rows)}
    return [found[key] for key in order if key in found]


def _rejections(n_simulations: int, case: tuple[str, int, float]) -> dict[str, Any]:
    return rejections(*case, n_simulations)


def _retrained(n_simulations: int, n_trainings: int) -> dict[str, Any]:
    return retrained(n_trainings, n_simulations)


def _shown(rows: Iterable[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    found = []
    for row in rows:
        print(
            "  ".join(f"{name} {value:.3g}" if isinstance(value, float) else str(value) for name, value in row.items()),
            flush=True,
        )
        found.append(row)
    return found


def main() -> None:
    """Run all simulations, print them and write the results."""
    parser = argparse.ArgumentParser(description="Coverage of intervals and errors of paired tests.")
    parser.add_argument("--simulations", type=int, default=N_SIMULATIONS, help="simulations per row (default: 1000)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    parser.add_argument("--only", default="", help="regular expression; run only these rows, and keep the others")
    arguments = parser.parse_args()
    before = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.only else None
    found = run(arguments.simulations, before=before, only=arguments.only)
    write_text(arguments.out, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
