"""Measure speed and memory of bootstrap intervals, against resampling items and scoring them with scikit-learn.

    python -m benchmarks.uncertainty
    python -m benchmarks.uncertainty --scale 0.01

Prints a table and writes ``benchmarks/results/uncertainty.json``. The reference is run for a few resamples, which must
agree to 1e-12, and its time is scaled to all of them. Each case runs in its own process.
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

from bend_hf.evaluation.predictions import Predictions
from bend_hf.files import write_text

RESULTS = Path(__file__).resolve().parent / "results" / "uncertainty.json"
N_RESAMPLES = 1000
N_ITEMS, N_MARKS, N_TRACKS = 100_000, 18, 125  # BEND: 18 histone marks, 125 chromatin tracks
N_GENES, GENE_BP = 597, (1_433, 14_000)  # BEND's gene finding, test split


@dataclass(frozen=True, kw_only=True)
class Case:
    """Predictions, a metric, and the number of resamples of the reference."""

    name: str
    data: Callable[[float], Predictions]
    metric: str
    n_plain: int


def tracks(n_labels: int) -> Callable[[float], Predictions]:
    """Make a function that draws scores of labels from rare to frequent."""

    def make(scale: float) -> Predictions:
        rng, n = np.random.default_rng(0), max(1_000, int(N_ITEMS * scale))
        true = (rng.random((n, n_labels), np.float32) < np.linspace(0.01, 0.5, n_labels)).astype(np.int16)
        return Predictions(
            item=np.arange(n),
            windows=np.arange(n + 1),
            target=true,
            score=rng.standard_normal((n, n_labels), np.float32) + true.astype(np.float32),
            predicted=None,
            label_names=tuple(map(str, range(n_labels))),
        )

    return make


def genes(scale: float) -> Predictions:
    """Draw one of nine classes per nucleotide, 70 % of them predicted correctly."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(*GENE_BP, max(10, int(N_GENES * scale)))
    true = rng.integers(0, 9, lengths.sum()).astype(np.int16)
    return Predictions(
        item=np.arange(len(lengths)),
        windows=np.concatenate([[0], np.cumsum(lengths)]),
        target=true,
        score=None,
        predicted=np.where(rng.random(len(true)) < 0.7, true, rng.integers(0, 9, len(true))).astype(np.int16),
        label_names=tuple("abcdefghi"),
    )


CASES = (
    Case(name="mcc, 597 genes by nucleotide", data=genes, metric="mcc", n_plain=2),
    Case(name="macro auroc, 18 labels", data=tracks(N_MARKS), metric="auroc", n_plain=3),
    Case(name="macro auprc, 18 labels", data=tracks(N_MARKS), metric="auprc", n_plain=3),
    Case(name="macro auroc, 125 labels", data=tracks(N_TRACKS), metric="auroc", n_plain=1),
)


def plain(predictions: Predictions, metric: str, n: int) -> list[float]:
    """Score the first resamples with scikit-learn, on concatenated items."""
    from sklearn.metrics import average_precision_score, matthews_corrcoef, roc_auc_score

    rng, n_items, values = np.random.default_rng([0, 0]), len(predictions), []
    for _ in range(n):
        drawn = rng.integers(0, n_items, n_items, dtype=np.int32)
        lengths = np.diff(predictions.windows)[drawn]
        first = np.repeat(predictions.windows[drawn] - np.cumsum(lengths) + lengths, lengths)
        rows: NDArray[np.int64] = first + np.arange(len(first))
        true = predictions.target[rows]
        if predictions.predicted is not None:
            values.append(float(matthews_corrcoef(true, predictions.predicted[rows])))
            continue
        if predictions.score is None:
            raise SystemExit(f"{metric} needs scores, not classes")
        curve = roc_auc_score if metric == "auroc" else average_precision_score
        values.append(float(curve(true, predictions.score[rows], average="macro")))
    return values


def measure(index: int, scale: float) -> dict[str, Any]:
    """Measure both sides of one case in this process."""
    from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap, draws_of

    case = CASES[index]
    predictions = case.data(scale)
    draws_of(tracks(2)(0.0), ["auroc"], Bootstrap(resamples=2))  # imports
    before_mib = _forget_peak()
    clock, used = time.perf_counter(), time.process_time()
    drawn = draws_of(predictions, [case.metric], Bootstrap(resamples=N_RESAMPLES))[case.metric]
    seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - used
    peak_mib = None if before_mib is None else _status_mib("VmHWM") - before_mib
    plain(tracks(2)(0.0), "auroc", 1)  # imports
    clock, used = time.perf_counter(), time.process_time()
    expected = plain(predictions, case.metric, case.n_plain)
    reference, cpu_reference = time.perf_counter() - clock, time.process_time() - used
    furthest = float(np.abs(drawn.values[: case.n_plain] - expected).max())
    if not furthest <= 1e-12:
        raise RuntimeError(f"{case.name}: the values differ by {furthest}")
    times = N_RESAMPLES / case.n_plain
    return {
        "name": case.name,
        "n_items": len(predictions),
        "n_windows": int(predictions.windows[-1]),
        "resamples": N_RESAMPLES,
        "ours_s": seconds,
        "ours_cpu_s": cpu_seconds,
        "ours_peak_mib": peak_mib,
        "reference_resamples": case.n_plain,
        "reference_s": reference * times,
        "reference_cpu_s": cpu_reference * times,
        "ratio": cpu_reference * times / cpu_seconds,
        "largest_difference": furthest,
    }


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


def main() -> None:
    """Run all cases, print the table and write the results."""
    import sklearn

    parser = argparse.ArgumentParser(description="Speed and memory of bootstrap intervals.")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the full number of items (default: 1)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    arguments = parser.parse_args()
    if not 0 < arguments.scale <= 1:
        parser.error(f"--scale is {arguments.scale}; expected a fraction above 0 and up to 1")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"{'':30}{'items':>9}{'ours':>10}{'CPU':>10}{'memory':>10}{'plain CPU':>12}{'times':>8}")
    rows = []
    for index in range(len(CASES)):
        with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
            row = pool.submit(measure, index, arguments.scale).result()
        rows.append(row)
        memory = "?" if row["ours_peak_mib"] is None else f"{row['ours_peak_mib']:.0f} MiB"
        print(
            f"{row['name']:30}{row['n_items']:>9,}{row['ours_s']:>8.1f} s{row['ours_cpu_s']:>8.1f} s"
            f"{memory:>10}{row['reference_cpu_s']:>10.0f} s{row['ratio']:>8.0f}",
            flush=True,
        )
    versions = {"numpy": np.__version__, "scikit-learn": sklearn.__version__}
    record = {"scale": arguments.scale, "machine": {"cores": os.cpu_count()}, "versions": versions, "rows": rows}
    write_text(arguments.out, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
