"""Measure speed and memory of the metrics on labels of the benchmark's size, against scikit-learn.

    python -m benchmarks.metrics
    python -m benchmarks.metrics --scale 0.01

Prints a table and writes ``benchmarks/results/metrics.json``. Each measurement runs in its own process, which makes
its data, warms up on a few items and then scores all of them once. Both sides must agree to 1e-12. The full scale takes
a few minutes and 6 GB.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bend_hf.files import write_text

RESULTS = Path(__file__).resolve().parent / "results" / "metrics.json"
N_LABELS = 40_000_000  # order of magnitude of the nucleotides in BEND's gene finding, all splits
N_ITEMS, N_TRACKS = 100_000, 125  # BEND's chromatin accessibility has 125 labels

Arrays = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison: data, and two functions that compute the same numbers from it."""

    name: str
    data: Callable[[float], Arrays]
    ours: Callable[[NDArray[Any], NDArray[Any]], list[float]]
    reference: Callable[[NDArray[Any], NDArray[Any]], list[float]]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One side of a comparison; the peak memory excludes the data, and is None if the system does not report it."""

    n_items: int
    seconds: float
    peak_mib: float | None
    values: list[float]


def labels(scale: float) -> Arrays:
    """Nine classes as imbalanced as in a gene, 70 % of them predicted correctly; int64, shape (items,)."""
    rng = np.random.default_rng(0)
    n = max(1_000, int(N_LABELS * scale))
    shares = np.array([0.06, 0.002, 0.3, 0.002, 0.06, 0.002, 0.3, 0.002, 0.272])
    true = rng.choice(9, n, p=shares)
    return np.where(rng.random(n) < 0.7, true, rng.choice(9, n, p=shares)), true


def tracks(scale: float) -> Arrays:
    """Scores (float32) and 0/1 labels (int64) of shape (items, labels), from rare to frequent labels."""
    rng = np.random.default_rng(0)
    shape = (max(1_000, int(N_ITEMS * scale)), N_TRACKS)
    true = (rng.random(shape, np.float32) < np.linspace(0.01, 0.5, N_TRACKS)).astype(np.int64)
    return rng.standard_normal(shape, np.float32) + true.astype(np.float32), true


def our_mcc(predictions: NDArray[Any], references: NDArray[Any]) -> list[float]:
    """Compute the coefficient, with everything else that the metric returns."""
    return [_ours("mcc", predictions, references)["mcc"]]


def their_mcc(predictions: NDArray[Any], references: NDArray[Any]) -> list[float]:
    """Compute the coefficient only."""
    from sklearn.metrics import matthews_corrcoef

    return [float(matthews_corrcoef(references, predictions))]


def our_classes(predictions: NDArray[Any], references: NDArray[Any]) -> list[float]:
    """Compute the coefficient, and recall and precision of each class."""
    result = _ours("mcc", predictions, references)
    return [result["mcc"], *result["recall"], *result["precision"]]


def their_classes(predictions: NDArray[Any], references: NDArray[Any]) -> list[float]:
    """Compute the coefficient, and recall and precision of each class, with three functions."""
    from sklearn.metrics import precision_score, recall_score

    recall = recall_score(references, predictions, average=None)
    precision = precision_score(references, predictions, average=None)
    return [*their_mcc(predictions, references), *recall.tolist(), *precision.tolist()]


def our_auroc(predictions: NDArray[Any], references: NDArray[Any]) -> list[float]:
    """Compute the value of each label and their mean."""
    result = _ours("auroc", predictions, references)
    return [result["auroc"], *result["per_label"]]


def their_auroc(predictions: NDArray[Any], references: NDArray[Any]) -> list[float]:
    """Compute the value of each label and their mean."""
    from sklearn.metrics import roc_auc_score

    per_label = roc_auc_score(references, predictions, average=None)
    return [float(np.mean(per_label)), *per_label.tolist()]


def our_auprc(predictions: NDArray[Any], references: NDArray[Any]) -> list[float]:
    """Compute the value of each label and their mean."""
    result = _ours("auprc", predictions, references)
    return [result["auprc"], *result["per_label"]]


def their_auprc(predictions: NDArray[Any], references: NDArray[Any]) -> list[float]:
    """Compute the value of each label and their mean."""
    from sklearn.metrics import average_precision_score

    per_label = average_precision_score(references, predictions, average=None)
    return [float(np.mean(per_label)), *per_label.tolist()]


def _ours(name: str, predictions: NDArray[Any], references: NDArray[Any]) -> dict[str, Any]:
    from bend_hf.evaluation.metrics import load_metric

    result: dict[str, Any] = load_metric(name).compute(predictions=predictions, references=references)
    return result


CASES = (
    Case(name="mcc", data=labels, ours=our_mcc, reference=their_mcc),
    Case(name="mcc, recall and precision", data=labels, ours=our_classes, reference=their_classes),
    Case(name="macro auroc", data=tracks, ours=our_auroc, reference=their_auroc),
    Case(name="macro auprc", data=tracks, ours=our_auprc, reference=their_auprc),
)


def measure(index: int, side: str, scale: float) -> Measured:
    """Measure one side of one case in this process."""
    case = CASES[index]
    predictions, references = case.data(scale)
    function = case.ours if side == "ours" else case.reference
    function(predictions[:1_000], references[:1_000])  # imports
    before_mib = _forget_peak()
    start = time.perf_counter()
    values = function(predictions, references)
    seconds = time.perf_counter() - start
    peak_mib = None if before_mib is None else _status_mib("VmHWM") - before_mib
    return Measured(n_items=len(references), seconds=seconds, peak_mib=peak_mib, values=values)


def _forget_peak() -> float | None:
    """Reset the recorded peak memory of this process and return what it holds now, in MiB; None except on Linux."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): 5 resets the peak resident set size
    except OSError:
        return None
    return _status_mib("VmRSS")


def _status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024


def compare(index: int, scale: float) -> dict[str, Any]:
    """Measure both sides of one case and check that they agree."""
    sides = {}
    for side in ("ours", "reference"):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            sides[side] = pool.submit(measure, index, side, scale).result()
    ours, reference = sides["ours"], sides["reference"]
    furthest = max(abs(a - b) for a, b in zip(ours.values, reference.values, strict=True))
    if not furthest <= 1e-12:
        raise RuntimeError(f"{CASES[index].name}: the values differ by {furthest}")
    return {
        "name": CASES[index].name,
        "n_items": ours.n_items,
        "ours_s": ours.seconds,
        "reference_s": reference.seconds,
        "ratio": reference.seconds / ours.seconds,
        "ours_peak_mib": ours.peak_mib,
        "reference_peak_mib": reference.peak_mib,
        "largest_difference": furthest,
    }


def main() -> None:
    """Run all cases, print the table and write the results."""
    import sklearn

    parser = argparse.ArgumentParser(description="Speed and memory of the metrics against scikit-learn.")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the full number of items (default: 1)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    arguments = parser.parse_args()
    if not 0 < arguments.scale <= 1:
        parser.error(f"--scale is {arguments.scale}; expected a fraction above 0 and up to 1")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)

    print(f"{'':26}{'items':>12}{'ours':>10}{'sklearn':>10}{'times':>8}{'ours':>10}{'sklearn':>10}")
    rows = []
    for index in range(len(CASES)):
        row = compare(index, arguments.scale)
        rows.append(row)
        peaks = (row["ours_peak_mib"], row["reference_peak_mib"])
        memory = "".join(f"{'?' if peak is None else f'{peak:.0f} MiB':>10}" for peak in peaks)
        seconds = f"{row['ours_s']:>8.2f} s{row['reference_s']:>8.2f} s{row['ratio']:>8.1f}"
        print(f"{row['name']:26}{row['n_items']:>12,}{seconds}{memory}", flush=True)

    versions = {"numpy": np.__version__, "scikit-learn": sklearn.__version__}
    record = {"scale": arguments.scale, "machine": {"cores": os.cpu_count()}, "versions": versions, "rows": rows}
    write_text(arguments.out, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
