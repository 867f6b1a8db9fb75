"""Write the data card of the bundled sample, with counts from the files that were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from sample_region import SPLIT_OF_BLOCK, Region
from sample_sources import DEBIAN_PACKAGE, FASTA_MEMBER, GENES_MEMBER, PYPI_PACKAGE, SEQUENCE_M5, Ints
from sample_variants import GC_FLANK_BP, MAX_GC_APART

from bend_hf.data.dataset import load_task
from bend_hf.data.sources import tasks_in
from bend_hf.evaluation.audit.task_audit import audit_task, findings_table
from bend_hf.tables import markdown_table


@dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """What the card says about a task.

    Attributes:
        task: Name of the task.
        splits: Number of rows of each split; empty for a task without splits.
        n_rows: Number of rows.
        names: Names of the labels, or of the kinds of variants.
        shares: Fraction of rows (or nucleotides, or bins) with each label.
        texts: How each label is derived.
        apart_bp: Median and largest distance between the two changes of a pair; None for a task without pairs.
    """

    task: str
    splits: dict[str, int]
    n_rows: int
    names: Sequence[str]
    shares: Sequence[float]
    texts: Sequence[str]
    apart_bp: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        task: str,
        splits: Sequence[object] | None,
        names: Sequence[str],
        counts: ArrayLike,
        total: int,
        texts: Sequence[str],
    ) -> TaskSummary:
        """Summarize a task from the split of each row, and the count of each label out of a total."""
        shares = (np.asarray(counts) / total).tolist()
        by_split = dict(sorted(Counter(str(split) for split in splits or ()).items()))
        n_rows = len(splits) if splits is not None else total
        return cls(task=task, splits=by_split, n_rows=n_rows, names=names, shares=shares, texts=texts)


_INTRO: Final = """\
# The bundled sample

Real human sequence on which every task of this package runs on two cores, without a download. **This is not BEND's
data.** Only gene finding has labels of BEND's kind. The labels of all other tasks are stand-ins: they are derived from
the sequence and from the RefSeq transcripts, not from experiments. A score on this sample shows that the software
works. It says nothing about a model's rank in BEND, and a result record from the sample (`data: sample`) cannot be
pushed as a BEND score.

`dataset_scripts/make_sample.py` writes the sample and this card. `sha256.json` holds the checksum of each other file.
"""

_SOURCES: Final = """\
## Sources and licenses

- The sequence of chromosome 20 of GRCh37 (MD5 of its letters: {m5}), from `{fasta}` in the Debian package `{debian}`.
  The reference assembly of the Genome Reference Consortium may be used without restriction. The package (example data
  of vt) has the MIT license, copyright 2013-2017 Adrian Tan.
- Exons and coding sequence of the transcripts, RefSeq curated on hg19, from `{genes}` in the PyPI package `{pypi}`.
  RefSeq is made by NCBI, an agency of the United States government, and is in the public domain. The package has the
  GPL, version 3; none of its code is used.

The sample uses facts only: letters of the reference, and positions of transcripts. It contains no file of either
package. The labels and the choice of rows are made by this project and have its license.
"""

_GENES: Final = """\
Genes whose transcript and flanks of up to 1,000 bp fit into 14,000 bp, each with its longest intact coding transcript
(ATG, whole codons, one stop, no gap under 30 bp). Genes that overlap the coding sequence of another gene are excluded.
Classes and conventions are BEND's: splice sites in genome order of the intron; the stop codon and introns outside the
coding sequence are `non_coding`.
"""

_COORDINATES: Final = """\
## Coordinates

`genomes/sample.fa.gz` holds these stretches of chromosome 20. The name of each contig ends in its start and end on
chromosome 20 (0-based, half-open). All tables count from the start of the contig; add the offset to get the position
on chromosome 20 of GRCh37.
"""

_BLOCKS: Final = """\
## Splits

The contigs are divided into ten blocks. A row lies within one block, so no nucleotide is in two splits or in two
subsets. Variants are not split.
"""

_ABOUT: Final = {
    "gene_finding": _GENES,
    "enhancer_annotation": """\
Windows of 100,096 bp around the start of a gene, 782 bins of 128 bp; four genes per subset. Windows of one subset may
overlap; windows of two subsets share no nucleotide. The labels stand in for enhancers.
""",
    "chromatin_accessibility": """\
Adjacent windows of 512 bp on the plus strand; windows with rare labels are drawn more often. The labels stand in for
DNase peaks.
""",
    "histone_modification": """\
Adjacent windows of 512 bp on random strands; labels follow the strand; windows with rare labels are drawn more often.
The labels stand in for histone marks.
""",
    "cpg_methylation": """\
Windows of 512 bp with a CpG at positions 255 and 256, on random strands; windows with rare labels are drawn more often,
and windows of one split may overlap. All labels except `cpg_dense` describe the location of this CpG. They stand in
for methylation in cell lines.
""",
    "variant_effects_expression": """\
Label 1 stands in for variants with an effect on expression.
""",
    "variant_effects_disease": """\
Label 1 stands in for pathogenic variants. All transcripts at the place agree on the consequence.
""",
}


_PAIRS: Final = """\
Enumerated changes, not observed variants, in matched pairs (column `pair`): label 1 breaks something, label 0, its
partner, breaks nothing. Both changes of a pair lie in the same part of the same gene (exon, intron, untranslated
sequence, or coding sequence for `start_lost`), replace the same letter by the same letter between the same two
neighbors, and have the same share of G and C in the {gc_bp:,} bp around them, give or take {gc:.1%}. They are
{median_bp} bp apart in the median, {largest_bp} bp at most. Composition, the kind of substitution and the distance from
the gene therefore say nothing about the label; chance is an AUROC of 0.5. The column `full_label` holds the kind.
"""


def write_card(path: Path, regions: list[Region], borders: list[Ints], summaries: list[TaskSummary]) -> None:
    """Write the card.

    Args:
        path: The file.
        regions: The contigs.
        borders: Borders of their blocks, each of shape (blocks + 1,).
        summaries: One per task.
    """
    sources = _SOURCES.format(
        m5=SEQUENCE_M5, fasta=FASTA_MEMBER, debian=DEBIAN_PACKAGE, genes=GENES_MEMBER, pypi=PYPI_PACKAGE
    )
    parts = [_INTRO, sources, _coordinates(regions), _blocks(regions, borders), "## Tasks\n", _rows(summaries)]
    text = "\n".join([*parts, *map(_task, summaries), audit_section(path.parent), _SCORES])
    path.write_text(text, newline="\n")


_AUDIT: Final = """\
## Leaks and shortcuts

What `bend-hf audit --data sample` finds: test rows (in cross-validation: rows of any subset) that occur in a split that
they are tested against, as a copy on either strand, a near copy, a shifted window or an overlapping place; the mean
share of their 31-mers that occurs there; rows with an equal sequence and other labels; and the score of the best rules
of one feature (length, GC, CpG, N, position), which need no model. Near copies here are repeats of the genome.
"""


def audit_section(folder: Path) -> str:
    """Audit every task of a sample, and write the findings.

    Args:
        folder: The sample.
    """
    _, tasks = tasks_in(folder)
    audits = [audit_task(load_task(task.key, str(folder))).as_json() for task in tasks]
    return f"{_AUDIT}\n{findings_table(audits)}\n"


# `python -m benchmarks._docs` fills it with what `python -m benchmarks.demo` measured on the sample.
_SCORES: Final = """\
## Scores

<!-- begin sample-scores -->
<!-- end sample-scores -->
"""


_SPLITS: Final = ("train", "valid", "test")


def _coordinates(regions: list[Region]) -> str:
    rows = [
        (
            r.span.name,
            f"{r.span.start_bp:,}",
            f"{r.n_bp:,}",
            f"{np.isin(r.bases, list(b'GC')).mean():.1%}",
            f"{len(r.transcripts):,}",
        )
        for r in regions
    ]
    table = markdown_table(("contig", "offset", "length", "G + C", "transcripts"), rows)
    return f"{_COORDINATES}\n{table}\n"


def _blocks(regions: list[Region], borders: list[Ints]) -> str:
    rows = [
        (f"part{n}", region.span.name, f"{start:,}", f"{end:,}", SPLIT_OF_BLOCK[n])
        for region, border in zip(regions, borders, strict=True)
        for n, (start, end) in enumerate(pairwise(border.tolist()), region.span.first_block)
    ]
    return f"{_BLOCKS}\n{markdown_table(('subset', 'contig', 'start', 'end', 'split'), rows)}\n"


def _rows(summaries: list[TaskSummary]) -> str:
    lines = ["Enhancer annotation is split by the ten subsets.\n"]
    rows = [
        [s.task, f"{s.n_rows:,}", *(f"{s.splits[name]:,}" if name in s.splits else "" for name in _SPLITS)]
        for s in summaries
    ]
    return "\n".join([*lines, markdown_table(("task", "rows", *_SPLITS), rows)]) + "\n"


def _task(summary: TaskSummary) -> str:
    lines = [f"### {summary.task}\n", _ABOUT[summary.task]]
    if summary.apart_bp is not None:
        median_bp, largest_bp = summary.apart_bp
        lines.append(
            _PAIRS.format(gc_bp=2 * GC_FLANK_BP + 1, gc=MAX_GC_APART, median_bp=median_bp, largest_bp=largest_bp)
        )
    rows = [
        (str(index), name, f"{share:.2%}", text)
        for index, (name, share, text) in enumerate(zip(summary.names, summary.shares, summary.texts, strict=True))
    ]
    return "\n".join([*lines, markdown_table(("index", "name", "share", "rule"), rows)]) + "\n"
