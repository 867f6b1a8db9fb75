"""Time the build of a dataset of 512-bp windows with 125 labels, against one pass over its rows as BEND's code does it.

    python -m benchmarks.build

The reference reads the BED file with pandas, fetches each row with pyfaidx and sets its labels one by one. It is timed
on a tenth of the rows, so the build has to process ten times as many in the same time. Writes
``benchmarks/results/build.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyfaidx

from bend_hf.config import DataConfig
from bend_hf.publishing.dataset_folder import build

RESULTS = Path(__file__).parent / "results" / "build.json"
N_LABELS = 125
GENOME_BP = 60_000_000


def write_inputs(folder: Path, n_rows: int) -> None:
    """Write a random genome of one contig and a BED file of windows with about four labels each."""
    rng = np.random.default_rng(0)
    (folder / "genomes").mkdir()
    letters = rng.choice(np.frombuffer(b"ACGT", np.uint8), (GENOME_BP // 60, 60))
    lines = np.concatenate([letters, np.full((len(letters), 1), ord("\n"), np.uint8)], axis=1)
    (folder / "genomes" / "genome.fa").write_bytes(b">chr1\n" + lines.tobytes())
    start = rng.integers(0, GENOME_BP - 512, n_rows)
    labels = [",".join(map(str, np.unique(rng.integers(0, N_LABELS, rng.integers(0, 9))))) for _ in range(n_rows)]
    pd.DataFrame(
        {
            "chromosome": "chr1",
            "start": start,
            "end": start + 512,
            "strand": rng.choice(["+", "-"], n_rows),
            "label": labels,
            "split": rng.choice(["train", "valid", "test"], n_rows, p=[0.8, 0.1, 0.1]),
        }
    ).to_csv(folder / "chromatin_accessibility.bed", sep="\t", index=False)


def plain_pass(folder: Path, n_rows: int) -> float:
    """Read rows one by one and return the seconds it took."""
    genome = pyfaidx.Fasta(str(folder / "genomes" / "genome.fa"))
    started = time.perf_counter()
    bed = pd.read_csv(folder / "chromatin_accessibility.bed", sep="\t", low_memory=False)
    n_bases = 0
    for _, row in bed.head(n_rows).iterrows():
        sequence = genome[row["chromosome"]][row["start"] : row["end"]]
        text = str((-sequence if row["strand"] == "-" else sequence).seq).upper()
        multi_hot = np.zeros(N_LABELS)
        if isinstance(row["label"], str):
            multi_hot[[int(index) for index in row["label"].split(",")]] = 1
        n_bases += len(text)
    if n_bases != 512 * n_rows:
        raise SystemExit(f"the reference read {n_bases} bp of {n_rows} rows; expected 512 bp each")
    return time.perf_counter() - started


def main() -> None:
    """Time both and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="rows to build (default: 100,000)")
    n_rows: int = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, n_rows)
        config = DataConfig(task=("chromatin_accessibility",), data=str(folder))
        pyfaidx.Faidx(str(folder / "genomes" / "genome.fa"))  # write the index before both are timed
        plain, ours = [], []
        for turn in range(3):
            plain.append(plain_pass(folder, n_rows // 10))
            started = time.perf_counter()
            (built,) = build(config, folder / f"bend{turn}")
            ours.append(time.perf_counter() - started)
            if built.n_items != n_rows:
                raise SystemExit(f"the build holds {built.n_items} of {n_rows} rows")
    rows_per_second, plain_per_second = n_rows / min(ours), n_rows / 10 / min(plain)
    result = {
        "name": f"build {n_rows:,} rows of 512 bp with {N_LABELS} labels, against a plain pass over {n_rows // 10:,}",
        "ours_s": min(ours),
        "plain_s": min(plain),
        "ours_rows_per_s": rows_per_second,
        "plain_rows_per_s": plain_per_second,
        "ratio": rows_per_second / plain_per_second,
        "needed": 10,
        "cores": os.cpu_count(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['name']}: {min(ours):.2f} s against {min(plain):.2f} s")
    print(f"{rows_per_second:,.0f} rows/s against {plain_per_second:,.0f}: {result['ratio']:.1f} times")


if __name__ == "__main__":
    main()
