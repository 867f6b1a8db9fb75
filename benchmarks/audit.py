"""Measure time and memory of an audit of 100,000 rows of 512 bp with planted copies, and audit the sample.

    python -m benchmarks.audit
    python -m benchmarks.audit --scale 0.01
    python -m benchmarks.audit --data ../shared/data/chr20
    python -m benchmarks.audit --data ../shared/data/chr20 --only-findings

Prints a table and writes ``benchmarks/results/audit.json``. Every planted copy must be found and no other row.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from bend_hf.data.builder import features
from bend_hf.data.dataset import TaskData, load_task
from bend_hf.data.sources import tasks_in
from bend_hf.evaluation.audit.task_audit import audit_task, findings_table
from bend_hf.files import asset_folder, write_text
from bend_hf.tasks import TASKS

RESULTS = Path(__file__).resolve().parent / "results" / "audit.json"
N_ROWS, ROW_BP, PLANTED = 100_000, 512, 0.01
SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}
LETTERS = np.frombuffer(b"ACGT", np.uint8)
KINDS = ("exact", "reverse complement", "shifted", "90 % identical")


def planted(kind: int, row: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Make a copy of a row; rows are codes 0 to 3."""
    if kind == 1:
        return 3 - row[::-1]
    if kind == 2:
        shift = int(rng.integers(1, ROW_BP // 2))
        return np.concatenate([row[shift:], rng.integers(0, 4, shift, np.uint8)])
    if kind == 3:
        places = rng.choice(ROW_BP, ROW_BP // 10, replace=False)
        row = row.copy()
        row[places] = (row[places] + rng.integers(1, 4, len(places), np.uint8)) % 4
    return row


def make_task(scale: float, folder: str) -> tuple[TaskData, int]:
    """Draw random rows with the labels of histone modification; some test rows are copies of training rows."""
    task = TASKS.get("histone_modification")
    rng, subsets, item, n_planted = np.random.default_rng(0), {}, 0, 0
    train: NDArray[np.uint8] = np.zeros((0, ROW_BP), np.uint8)
    for name, share in SPLITS.items():
        codes = rng.integers(0, 4, (int(N_ROWS * scale * share), ROW_BP), np.uint8)
        if name == "train":
            train = codes
        if name == "test":
            n_planted = int(len(codes) * PLANTED)
            for number in range(n_planted):
                codes[number] = planted(number % len(KINDS), train[number], rng)

        def rows(codes: NDArray[np.uint8] = codes, first: int = item) -> Iterator[dict[str, Any]]:
            for number, row in enumerate(codes, first):
                yield {
                    "item": number,
                    "chromosome": "random",
                    "start": number * ROW_BP,
                    "end": (number + 1) * ROW_BP,
                    "strand": "+",
                    "sequence": LETTERS[row].tobytes().decode(),
                    "labels": np.flatnonzero(rng.random(len(task.label_names)) < 0.1).tolist(),
                }

        subsets[name] = datasets.Dataset.from_generator(rows, features=features(task), cache_dir=folder)
        item += len(codes)
    return TaskData(task=task, subsets=subsets, facts={}), n_planted


def measure(scale: float) -> dict[str, Any]:
    """Audit random rows and check that the planted ones, and no others, are found."""
    with tempfile.TemporaryDirectory() as folder:
        data, n_planted = make_task(scale, folder)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        clock, used = time.perf_counter(), time.process_time()
        audit = audit_task(data)
        seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n_rows = sum(audit.summary["rows"].values())
    leaks = np.flatnonzero(audit.leaks)
    first = n_rows - audit.summary["rows"]["test"]
    found, others = int((leaks < first + n_planted).sum()), int((leaks >= first + n_planted).sum())
    if found != n_planted or others:
        raise RuntimeError(f"{found} of {n_planted} planted copies were found, and {others} other rows")
    return {
        "rows": n_rows,
        "row_bp": ROW_BP,
        "labels": len(data.task.label_names),
        "planted": n_planted,
        "kinds": list(KINDS),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mib": peak / 1024,
        "peak_before_mib": before / 1024,
    }


def findings(folder: Path) -> list[dict[str, Any]]:
    """Audit every task of a data folder."""
    place, tasks = tasks_in(folder)
    return [audit_task(load_task(task.key, str(place))).as_json() for task in tasks]


def main() -> None:
    """Measure, audit the sample and one more folder, print both and write the results."""
    parser = argparse.ArgumentParser(description="Time and memory of an audit.")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the 100,000 rows (default: 1)")
    parser.add_argument("--data", type=Path, help="a data folder to audit as well")
    parser.add_argument(
        "--only-findings",
        action="store_true",
        help="audit the sample, and the folder of --data, again, and keep all other results",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    arguments = parser.parse_args()
    if not 0 < arguments.scale <= 1:
        parser.error(f"--scale is {arguments.scale}; expected a fraction above 0 and up to 1")
    folders = {"sample": asset_folder("sample"), **({arguments.data.name: arguments.data} if arguments.data else {})}
    if arguments.only_findings:
        record = json.loads(arguments.out.read_text(encoding="utf-8"))
        record["findings"] |= {name: findings(folder) for name, folder in folders.items()}
        write_text(arguments.out, json.dumps(record, indent=2) + "\n")
        return
    row = measure(arguments.scale)
    print(
        f"{row['rows']:,} rows of {ROW_BP} bp with {row['labels']} labels: {row['seconds']:.0f} s "
        f"({row['cpu_seconds']:.0f} s of CPU), peak memory {row['peak_mib']:,.0f} MiB; "
        f"all {row['planted']} planted copies found, no other row"
    )
    audits = {name: findings(folder) for name, folder in folders.items()}
    for name, found in audits.items():
        print(f"\n{name}\n{findings_table(found)}")
    record = {"scale": arguments.scale, "machine": {"cores": os.cpu_count()}, "rows": [row], "findings": audits}
    write_text(arguments.out, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
