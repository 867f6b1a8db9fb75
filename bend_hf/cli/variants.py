"""``bend-hf variants``: score variants from a BED file or a VCF, with or without labels.

bend-hf variants mine.vcf.gz --model dnabert2 --genome hg38.fa --out results
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bend_hf.cli import Command
from bend_hf.cli._output import add_dry_run, show, show_forecast


def _add_flags(parser: argparse.ArgumentParser) -> None:
    from bend_hf.config import add_flags
    from bend_hf.variants.config import VariantRun

    parser.add_argument(
        "file", type=Path, metavar="FILE", help="BED file with columns ref and alt, or a VCF; labels are optional"
    )
    add_flags(parser, VariantRun)
    add_dry_run(parser)


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.config import given_values
    from bend_hf.runs.variant_file import score_file
    from bend_hf.variants.config import VariantRun
    from bend_hf.variants.summary import as_table

    config = VariantRun(**given_values(VariantRun, parsed))
    if parsed.dry_run:
        from bend_hf.runs.forecast import forecast_variants

        return show_forecast(parsed, [forecast_variants(parsed.file, config)])
    done = score_file(parsed.file, config)
    if not done.files:
        return 0  # another process writes and prints
    labels = done.summary["labels"]
    counts = ", ".join(f"{n:,} {name}" for name, n in labels.items()) if isinstance(labels, dict) else ""
    state = "were scored before; --force scores them again" if done.was_there else "scored"
    lines: list[object] = [f"{len(done.predictions):,} variants {state}; labels: {counts}"]
    heads = done.probed.detail if done.probed is not None else None
    if done.summary["scores"]:
        lines += ["", as_table(done.summary, heads), ""]
    lines += [f"{kind}: {path}" for kind, path in done.files.items()]
    about = {"file": parsed.file, "model": done.record.model.get("model"), "variants": len(done.predictions)}
    show(parsed, lines, [{**about, **done.summary, "heads": heads, "files": done.files}])
    return 0


COMMANDS = (
    Command(
        key="variants",
        text="score variants from a BED file or a VCF, with or without labels",
        example="bend-hf variants mine.vcf.gz --genome GRCh38.fa --model dnabert2",
        has_records=True,
        add_flags=_add_flags,
        run=_run,
    ),
)
