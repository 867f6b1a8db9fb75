"""List the regions of chromosome 20 that bend-mini must not see, because models are scored there.

    python -m examples.bend_mini.left_out_regions ../shared/data/chr20

The tasks of the chromosome are split by blocks of 2 Mb; every block with a test row is left out whole. The variants
with the context that models read around them, and the regions of the bundled sample, are left out as well. Writes
``left_out.bed``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from bend_hf.files import start_logging

HERE = Path(__file__).resolve().parent
BED = HERE / "left_out.bed"

BLOCK_BP = 2_000_000  # README of the data: splits are by 2-Mb blocks of the chromosome
CONTEXT_BP = 256  # BEND's context on each side of a variant
SPLIT_TASKS = ("gene_finding", "chromatin_accessibility", "histone_modification")
# kept for the sample; dataset_scripts/sample_region.py cuts it from these and from the blocks of test rows
SAMPLE = ((2_750_000, 3_850_000), (43_330_000, 44_830_000), (61_400_000, 62_900_000))


def left_out(folder: Path) -> pd.DataFrame:
    """The left-out intervals with their reasons, sorted; they may overlap.

    Args:
        folder: Folder with the task files of chromosome 20.
    """
    rows = [("chr20", start, end, "sample") for start, end in SAMPLE]
    blocks: set[int] = set()
    for task in SPLIT_TASKS:
        bed = pd.read_csv(folder / f"{task}.bed", sep="\t", usecols=["start", "end", "split"])
        test = bed[bed["split"] == "test"]
        blocks |= set(test["start"] // BLOCK_BP) | set((test["end"] - 1) // BLOCK_BP)
    rows += [("chr20", block * BLOCK_BP, (block + 1) * BLOCK_BP, "test") for block in sorted(blocks)]
    variants = pd.read_csv(folder / "variant_effects_disease.bed", sep="\t", usecols=["start"])["start"].unique()
    rows += [("chr20", max(0, at - CONTEXT_BP), at + CONTEXT_BP + 1, "variant") for at in sorted(map(int, variants))]
    return pd.DataFrame(sorted(rows), columns=["chromosome", "start", "end", "reason"])


def main() -> None:
    """Write the BED file."""
    start_logging()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with the task files of chromosome 20")
    made = left_out(parser.parse_args().folder)
    chromosome_bp = 63_025_520  # README of the data
    made["end"] = made["end"].clip(upper=chromosome_bp)
    made.to_csv(BED, sep="\t", index=False)
    print(f"{BED}: {len(made):,} intervals")


if __name__ == "__main__":
    main()
