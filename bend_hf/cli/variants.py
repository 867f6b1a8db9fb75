"""``bend-hf variants``: scores anybody's variants, with labels or without, from a bed or a VCF.

bend-hf variants mine.vcf.gz --model dnabert2 --genome hg38.fa --out results
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from bend_hf.cli import Command


def _add_flags(parser: argparse.ArgumentParser) -> None:
    from bend_hf.config import add_flags
    from bend_hf.variants.config import VariantRun

    parser.add_argument("file", type=Path, metavar="FILE", help="a bed with ref and alt, or a VCF; label is optional")
    add_flags(parser, VariantRun)


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.runs.variant_file import score_file
    from bend_hf.variants.config import VariantRun
    from bend_hf.variants.summary import as_text

    given: dict[str, Any] = {
        item.name: getattr(parsed, item.name) for item in fields(VariantRun) if hasattr(parsed, item.name)
    }
    config = VariantRun(**given)
    done = score_file(parsed.file, config)
    if not done.files:
        return 0  # another process writes and speaks
    labels = done.summary["labels"]
    told = ", ".join(f"{n:,} {name}" for name, n in labels.items()) if isinstance(labels, dict) else ""
    print(f"{len(done.predictions):,} variants scored; labels: {told}")
    if done.summary["scores"]:
        print("\n" + as_text(done.summary, done.probed.detail if done.probed is not None else None) + "\n")
    for kind, path in done.files.items():
        print(f"{kind}: {path}")
    return 0


COMMANDS = (
    Command(
        key="variants",
        text="score variants of your own from a bed or a VCF, with labels or without",
        add_flags=_add_flags,
        run=_run,
    ),
)
