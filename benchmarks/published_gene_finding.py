"""Compute the MCC of published gene finders on BEND's test rows, from predictions that others published.

    python -m benchmarks.published_gene_finding ../shared/data/bend_gene_finding_test

Writes ``benchmarks/results/published_gene_finding.json``, from which ``model_cards/published.toml`` takes its values.
The folder holds ``ground_truth.npz`` and one file per gene finder, as the example data of PredictProtein/benchmark do:
for each test row an array ``<row>_fow`` and an array ``<row>_rev``, which is read backwards, with one code per
nucleotide.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.evaluation.metrics import score
from bend_hf.files import file_sha256, write_text

RESULTS: Final = Path(__file__).resolve().parent / "results" / "published_gene_finding.json"
TRUTH: Final = "ground_truth.npz"
MODELS: Final = {"augustus": "AUGUSTUS", "tiberius": "Tiberius", "segmentnt": "SegmentNT"}
NON_CODING, CDS, INTRON = 1, 2, 3  # codes of the files; splice sites are part of the introns


def classes(path: Path) -> NDArray[np.int64]:
    """Read a file as one class per nucleotide of all rows.

    Args:
        path: File of arrays ``<row>_fow`` and ``<row>_rev``.

    Returns:
        0 non-coding, 1 coding and 2 intron on the plus strand, 3 coding and 4 intron on the minus strand; the plus
        strand counts where both strands are annotated. Shape (nucleotides,).
    """
    with np.load(path) as arrays:
        rows = sorted({name.partition("_")[0] for name in arrays.files}, key=int)
        forward = np.concatenate([arrays[f"{row}_fow"] for row in rows]).astype(np.int64)
        reverse = np.concatenate([arrays[f"{row}_rev"][::-1] for row in rows]).astype(np.int64)
    plus, minus = forward - NON_CODING, reverse - NON_CODING
    return np.where(plus > 0, plus, np.where(minus > 0, minus + 2, 0))


def measure(folder: Path) -> dict[str, object]:
    """Compute the MCC of each gene finder in a folder."""
    truth = classes(folder / TRUTH)
    scores = {title: score("mcc", classes(folder / f"{name}.npz"), truth).value for name, title in MODELS.items()}
    with np.load(folder / TRUTH) as arrays:
        n_rows = len(arrays.files) // 2
    return {
        "classes": 5,
        "rows": n_rows,
        "nucleotides": len(truth),
        "mcc": scores,
        "sha256": {name: file_sha256(folder / name) for name in (TRUTH, *(f"{name}.npz" for name in MODELS))},
    }


def main() -> None:
    """Write the results of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    found = measure(parser.parse_args().folder)
    write_text(RESULTS, json.dumps(found, indent=2) + "\n")
    print(json.dumps(found["mcc"], indent=2))


if __name__ == "__main__":
    main()
