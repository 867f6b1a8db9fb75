"""``bend-hf variants``: score variants from a BED file or a VCF, with or without labels.

bend-hf variants mine.vcf.gz --model dnabert2 --genome hg38.fa --out results
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bend_hf.cli import Command


def _add_flags(parser: argparse.ArgumentParser) -> None:
    from bend_hf.config import add_flags
    from bend_hf.variants.config import VariantRun

    parser.add_argument(
        "file", type=Path, metavar="FILE", help="BED file with columns ref and alt, or a VCF; labels are optional"
    )
    add_flags(parser, VariantRun)


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.config import given_values
    from bend_hf.runs.variant_file import score_file
    from bend_hf.variants.config import VariantRun
    from bend_hf.variants.summary import as_text

    done = score_file(parsed.file, VariantRun(**given_values(VariantRun, parsed)))
    if not done.files:
        return 0  # another process writes and prints
    labels = done.summary["labels"]
    counts = ", ".join(f"{n:,} {name}" for name, n in labels.items()) if isinstance(labels, dict) else ""
    print(f"{len(done.predictions):,} variants scored; labels: {counts}")
    if done.summary["scores"]:
        print("\n" + as_text(done.summary, done.probed.detail if done.probed is not None else None) + "\n")
    for kind, path in done.files.items():
        print(f"{kind}: {path}")
    return 0


COMMANDS = (
    Command(
        key="variants",
        text="score variants from a BED file or a VCF, with or without labels",
        add_flags=_add_flags,
        run=_run,
    ),
)
