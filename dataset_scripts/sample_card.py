"""Writes the data card of the bundled sample, its counts taken from what was made.

For ``make_sample.py``.

>>> TaskSummary.of("toy", ["train"], ["a"], [1], 1, ["always"]).splits
{'train': 1}
"""

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

from bend_hf.tables import markdown_table


@dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """What the card says of a task.

    Attributes:
        task: Its name.
        splits: Rows of each split; empty where there is none.
        n_rows: Rows in all.
        names: Of its labels, or of the kinds of its variants.
        shares: How often each occurs.
        texts: How each is derived.
    """

    task: str
    splits: dict[str, int]
    n_rows: int
    names: Sequence[str]
    shares: Sequence[float]
    texts: Sequence[str]

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
        shares = (np.asarray(counts) / total).tolist()
        by_split = dict(sorted(Counter(str(split) for split in splits or ()).items()))
        n_rows = len(splits) if splits is not None else total
        return cls(task=task, splits=by_split, n_rows=n_rows, names=names, shares=shares, texts=texts)


_INTRO: Final = """\
# The bundled sample

Real human sequence with which every task of this package can be run at once, on two cores, with no download. **It is
not BEND's data.** Only gene finding has labels of BEND's kind. The labels of all other tasks stand in for the real
ones: they are derived from the sequence and from where RefSeq places its transcripts, and no experiment was made.
A score on this sample shows that the machinery works; it says nothing about a model's rank in BEND, and a result
record that comes from it (`data: sample`) cannot be pushed as a BEND score.

Made by `dataset_scripts/make_sample.py`, which also counted what stands in the tables below. `sha256.json` holds the
checksum of each file.
"""

_SOURCES: Final = """\
## Sources and licenses

- The sequence of chromosome 20 of GRCh37 (MD5 of its letters {m5}), from `{fasta}` in the Debian package `{debian}`.
  The reference assembly of the Genome Reference Consortium is free of restrictions. The package (example data of vt)
  is under the MIT license, copyright 2013-2017 Adrian Tan.
- Exons and coding sequence of the transcripts, RefSeq curated on hg19, from `{genes}` in the PyPI package `{pypi}`.
  RefSeq is made by NCBI, an office of the United States government, and in the public domain. The package is under
  the GPL, version 3; nothing of its code is used.

What is taken are facts: letters of the reference, and where transcripts lie on it. No file of either package is
here. The labels and the choice of rows are this project's own and follow its license.
"""

_GENES: Final = """\
Genes whose transcript and flanks fit into 14,000 nt, one intact coding transcript each (ATG, whole codons, one stop,
no gap under 30 nt), the longest; flanks of up to 1,000 nt. A gene is left out where another gene's coding sequence
reaches into it; other transcripts of the gene itself do not count. Classes and convention are BEND's: splice sites in
genome order of the intron; the stop codon and introns outside the coding sequence are `non_coding`.
"""

_ABOUT: Final = {
    "gene_finding": _GENES,
    "enhancer_annotation": """\
Windows of 100,096 nt around the start of a gene, 782 bins of 128 nt; four genes a part. Windows of one part may
overlap, those of two parts share no nucleotide. The labels stand in for enhancers.
""",
    "chromatin_accessibility": """\
Windows of 512 nt side by side, read on plus; those with rare labels are drawn more often. The labels stand in for
DNase peaks.
""",
    "histone_modification": """\
Windows of 512 nt side by side, on strands drawn by chance; labels follow the strand; those with rare labels are drawn
more often. The labels stand in for histone marks.
""",
    "cpg_methylation": """\
Windows of 512 nt whose places 255 and 256 are a CpG, on strands drawn by chance; those with rare labels are drawn more
often, and windows of one split may overlap. All labels but `cpg_dense` say where this CpG lies. They stand in for
methylation in cell lines.
""",
    "variant_effects_expression": """\
Enumerated changes, none observed. Label 1 is `core_promoter` and `splice_consensus`, label 0 `deep_intron`; the column
`full_label` has these names. They stand in for variants with an effect on expression.
""",
    "variant_effects_disease": """\
Enumerated changes, none observed, of one meaning in all transcripts. Label 1 is `stop_gained`, `splice_donor_variant`
and `splice_acceptor_variant`, label 0 `synonymous_variant` and `intron_variant`; the column `full_label` has these
names. They stand in for pathogenic variants.
""",
}


def write_card(path: Path, regions: list[Region], borders: list[Ints], summaries: list[TaskSummary]) -> None:
    """Write the card.

    Args:
        path: The file.
        regions: The contigs.
        borders: Of their blocks, each of shape (blocks + 1,).
        summaries: One a task.
    """
    sources = _SOURCES.format(
        m5=SEQUENCE_M5, fasta=FASTA_MEMBER, debian=DEBIAN_PACKAGE, genes=GENES_MEMBER, pypi=PYPI_PACKAGE
    )
    parts = [_INTRO, sources, _coordinates(regions), _blocks(regions, borders), "## Tasks\n", _rows(summaries)]
    path.write_text("\n".join([*parts, *map(_task, summaries)]), newline="\n")


_SPLITS: Final = ("train", "valid", "test")


def _coordinates(regions: list[Region]) -> str:
    lines = [
        "## Coordinates\n",
        "`genomes/sample.fa.gz` holds these stretches of chromosome 20, each a contig whose name ends in its start "
        "and end\non chromosome 20 (0-based, half-open). All tables count from the start of the contig; add the "
        "offset to get the\nplace on chromosome 20 of GRCh37.\n",
        "| contig | offset | length | G + C | transcripts |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.span.name} | {r.span.start_bp:,} | {r.n_bp:,} | {np.isin(r.bases, list(b'GC')).mean():.1%} "
        f"| {len(r.transcripts):,} |"
        for r in regions
    ]
    return "\n".join(lines) + "\n"


def _blocks(regions: list[Region], borders: list[Ints]) -> str:
    lines = [
        "## Splits\n",
        "The contigs are divided into ten blocks; a row lies wholly in one, so no nucleotide is in two splits or in "
        "two parts.\nVariants are not split.\n",
        "| part | contig | start | end | split |",
        "|---|---|---|---|---|",
    ]
    for region, border in zip(regions, borders, strict=True):
        for n, (start, end) in enumerate(pairwise(border.tolist()), region.span.first_block):
            lines.append(f"| part{n} | {region.span.name} | {start:,} | {end:,} | {SPLIT_OF_BLOCK[n]} |")
    return "\n".join(lines) + "\n"


def _rows(summaries: list[TaskSummary]) -> str:
    lines = ["Enhancer annotation is split by the ten parts.\n"]
    rows = [
        [s.task, f"{s.n_rows:,}", *(f"{s.splits[name]:,}" if name in s.splits else "" for name in _SPLITS)]
        for s in summaries
    ]
    return "\n".join([*lines, markdown_table(("task", "rows", *_SPLITS), rows)]) + "\n"


def _task(summary: TaskSummary) -> str:
    lines = [f"### {summary.task}\n", _ABOUT[summary.task]]
    rows = [
        (str(index), name, f"{share:.2%}", text)
        for index, (name, share, text) in enumerate(zip(summary.names, summary.shares, summary.texts, strict=True))
    ]
    return "\n".join([*lines, markdown_table(("index", "name", "share", "rule"), rows)]) + "\n"
