r"""Write predicted genes as GFF3: a gene, its mRNA and its CDS, with phases.

The format is https://github.com/The-Sequence-Ontology/Specifications/blob/master/gff3.md, version 1.26. Coordinates are
1-based and closed. The phase of a CDS is the number of nucleotides to skip, from its 5' end, to the next codon.

>>> genes = genes_of(np.array([8, 0, 0, 1, 2, 3, 0, 8]), np.array([8]))
>>> print(gff3_text(genes, ["chr1"], np.array([100])).replace("\t", " "), end="")
chr1 bend_hf gene 102 107 . + . ID=gene1
chr1 bend_hf mRNA 102 107 . + . ID=mrna1;Parent=gene1
chr1 bend_hf CDS 102 103 . + 0 ID=cds1;Parent=mrna1
chr1 bend_hf CDS 107 107 . + 1 ID=cds1;Parent=mrna1
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.evaluation.gene_structure import structure_of
from bend_hf.types import Bools, Ints

HEADER: Final = "##gff-version 3\n"
_SOURCE: Final = "bend_hf"
_NOT_IN_SEQID: Final = re.compile(r"[^a-zA-Z0-9.:^*$@!+_?|-]")  # the specification's column 1
_CODON: Final = 3


@dataclass(frozen=True, kw_only=True)
class Genes:
    """Predicted genes, ordered by place; coordinates count from the start of their row.

    Attributes:
        row: Row of each gene, shape (genes,).
        start_bp: First coding nucleotide, shape (genes,).
        end_bp: Position after the last coding nucleotide, shape (genes,).
        strand: 1 or -1, shape (genes,).
        is_whole: Whether both ends lie within the row, shape (genes,).
        exons: Start, end and phase of the exons of each gene, from left to right.
    """

    row: Ints
    start_bp: Ints
    end_bp: Ints
    strand: NDArray[np.int8]
    is_whole: Bools
    exons: list[NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.row)


def genes_of(classes: NDArray[Any], lengths: Ints) -> Genes:
    """Read genes from the classes of some rows.

    The first codon of a gene whose 5' end the row cuts is not known. Its phase follows from the 3' end if that is
    known, and is 0 otherwise.

    Args:
        classes: Classes of gene finding, shape (nucleotides,).
        lengths: Nucleotides of each row, shape (rows,).
    """
    structure = structure_of(classes, lengths)
    exons, gene = structure.exons, structure.transcript_of_exon
    row_start = np.cumsum(lengths) - lengths
    begins, ends = np.full(len(structure.transcripts), len(classes)), np.zeros(len(structure.transcripts), np.int64)
    np.minimum.at(begins, gene, exons.start_bp)
    np.maximum.at(ends, gene, exons.end_bp)
    row, strand = structure.transcripts.row, structure.transcripts.strand
    # an end is known if something else stands next to it in the row
    opens = structure.transcripts.start_bp == begins
    closes = structure.transcripts.end_bp == ends
    knows_left = opens & (begins > row_start[row])
    knows_right = closes & (ends < row_start[row] + lengths[row])
    size = exons.end_bp - exons.start_bp
    total = np.bincount(gene, size, len(begins)).astype(np.int64)
    first_of_gene = np.searchsorted(gene, np.arange(len(begins)))
    before = np.cumsum(size) - size
    from_left = before - before[first_of_gene][gene]
    coded = np.where(exons.strand > 0, from_left, total[gene] - from_left - size)  # before the exon, from the 5' end
    knows_5, knows_3 = np.where(strand > 0, (knows_left, knows_right), (knows_right, knows_left))
    skipped = np.where(knows_5 | ~knows_3, 0, total % _CODON)
    phase = (skipped[gene] - coded) % _CODON
    origin = row_start[exons.row]
    table = np.stack([exons.start_bp - origin, exons.end_bp - origin, phase], axis=1)
    return Genes(
        row=row,
        start_bp=begins - row_start[row],
        end_bp=ends - row_start[row],
        strand=strand,
        is_whole=knows_left & knows_right,
        exons=np.split(table, first_of_gene[1:]) if len(begins) else [],
    )


def gff3_text(genes: Genes, names: Sequence[str], start_bp: Ints, *, n_before: int = 0) -> str:
    """Write genes as lines of GFF3, without the header.

    Args:
        genes: The genes.
        names: Contig of each row.
        start_bp: Place of each row in its contig, 0-based.
        n_before: Genes that were written before, for their numbers.
    """
    lines = []
    for number, exons in enumerate(genes.exons):
        row, name = int(genes.row[number]), n_before + number + 1
        origin, strand = int(start_bp[row]), "+" if genes.strand[number] > 0 else "-"
        seqid = _NOT_IN_SEQID.sub(lambda sign: "".join(f"%{byte:02X}" for byte in sign[0].encode()), names[row])
        partial = "" if genes.is_whole[number] else ";partial=true"
        place = f"{origin + genes.start_bp[number] + 1}\t{origin + genes.end_bp[number]}"
        lines += [
            f"{seqid}\t{_SOURCE}\tgene\t{place}\t.\t{strand}\t.\tID=gene{name}{partial}",
            f"{seqid}\t{_SOURCE}\tmRNA\t{place}\t.\t{strand}\t.\tID=mrna{name};Parent=gene{name}{partial}",
        ]
        lines += [
            f"{seqid}\t{_SOURCE}\tCDS\t{origin + start + 1}\t{origin + end}\t.\t{strand}\t{phase}\t"
            f"ID=cds{name};Parent=mrna{name}"
            for start, end, phase in exons.tolist()
        ]
    return "".join(f"{line}\n" for line in lines)
