"""What a model has seen of the test rows in pretraining: the share of their nucleotides, and of their 31-mers.

A model's pretraining data are a BED file of regions, or a FASTA file. ``pretraining_of_model`` finds the file next to a
model, under the name ``pretraining.bed`` or ``pretraining.fa``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.data.assembly import UNKNOWN
from bend_hf.data.bed import read_bed
from bend_hf.data.genome import Genome
from bend_hf.embedders import MODELS
from bend_hf.errors import InputError
from bend_hf.evaluation.audit.copies import SEEN_BP
from bend_hf.evaluation.audit.kmers import CODE_OF, Codes, Sequences, canonical_kmers, sampling_limit
from bend_hf.evaluation.audit.places import Places
from bend_hf.evaluation.audit.rows import AuditRows
from bend_hf.evaluation.identity import mixed
from bend_hf.files import asset_folder, file_sha256
from bend_hf.types import Bools, Bytes, Ints, Json

REGION_FILES: Final = ("pretraining.bed", "pretraining.bed.gz", "pretraining.fa", "pretraining.fa.gz")
SEEN_KMERS: Final = 0.2  # a row with fewer of its 31-mers in the pretraining data is unseen; repeats alone give a few
MAX_KMERS: Final = 1 << 25  # 31-mers of test rows kept in memory; of more, a fixed sample
_PIECE_BP: Final = 1 << 22  # nucleotides read at once
_TABLE_BITS: Final = 27  # a table of hashed 31-mers, 128 MB, that rules out most nucleotides quickly
_FASTA: Final = (".fa", ".fasta", ".fna", ".fa.gz", ".fasta.gz", ".fna.gz", ".fa.bgz")


@dataclass(frozen=True, kw_only=True, eq=False)
class PretrainingOverlap:
    """What the pretraining data hold of each tested row; T rows.

    Attributes:
        row: Index of each tested row among all rows of the task, shape (T,).
        nucleotide_share: Share of the row's nucleotides that lie in the regions, shape (T,); None if the data are a
            FASTA file, or name no chromosome of the task.
        kmer_share: Share of the row's 31-mers that occur in the data, shape (T,).
        sampling: Fraction of the 31-mers that was used.
        source: Name and sha256 of the file.
    """

    row: Ints
    nucleotide_share: NDArray[np.float64] | None
    kmer_share: NDArray[np.float64]
    sampling: float
    source: dict[str, Json]

    @property
    def unseen(self) -> Bools:
        """Whether no nucleotide of a row lies in the regions and few of its 31-mers occur there, shape (T,)."""
        unseen: Bools = self.kmer_share < SEEN_KMERS
        return unseen if self.nucleotide_share is None else unseen & (self.nucleotide_share == 0)

    def as_json(self) -> dict[str, Json]:
        """The summary, as an audit stores it."""
        shares = {"nucleotides_seen": self.nucleotide_share, "share_of_31mers_seen": self.kmer_share}
        return {
            "source": dict(self.source),
            "tested_rows": len(self.row),
            "unseen_rows": int(self.unseen.sum()),
            "unseen_below_share_of_31mers": SEEN_KMERS,
            "sampled_share_of_kmers": self.sampling,
            **{
                name: None if share is None else {"mean": float(share.mean()), "median": float(np.median(share))}
                for name, share in shares.items()
            },
        }


def pretraining_of_model(model: str) -> Path | None:
    """Find the file of pretraining regions next to a model; None if it has no such file.

    Args:
        model: Key of a model, or a folder.
    """
    folder = Path(model)
    if model in MODELS:
        spec = MODELS.get(model)
        if spec.source != "package":
            return None
        folder = asset_folder("pretrained") / spec.checkpoint
    return next((folder / name for name in REGION_FILES if (folder / name).is_file()), None)


def seen_in_words(model: str) -> str:
    """Say what is known of a model's pretraining data, if there is no file of regions next to it.

    >>> seen_in_words("onehot")
    'onehot is not pretrained: every test row is unseen.'
    """
    if (regions := pretraining_of_model(model)) is not None:
        return f"Its regions are in {regions.name}; 'bend-hf audit TASK --model {model}' compares test rows with them."
    if model not in MODELS:
        return f"No file of pretraining regions is next to {model}: it is not known which test rows it has seen."
    spec = MODELS.get(model)
    if spec.source == "none":
        return f"{spec.key} is not pretrained: every test row is unseen."
    if not spec.training_data:
        return f"{spec.key} does not say what it was pretrained on: it is not known which test rows it has seen."
    data = spec.training_data
    if data == UNKNOWN:
        return (
            f"What {spec.key} was pretrained on is not confirmed: no test row of a human task can be taken as unseen."
        )
    if spec.trained_on_human_genome:
        return f"{spec.key} was pretrained on {data}: no test row of a human task can be taken as unseen."
    return (
        f"{spec.key} was pretrained on {data}, not on the human genome: it has seen no test row of a human task, but "
        "may have seen sequence that the species share."
    )


def pretraining_overlap(rows: AuditRows, source: Path, genome: Path | None) -> PretrainingOverlap:
    """Compare the tested rows of a task with pretraining data.

    The rows of the test split are compared; all rows if the task has no test split.

    Args:
        rows: The rows.
        source: BED file of regions, or FASTA file.
        genome: FASTA file that a BED file refers to.

    Raises:
        InputError: The file cannot be read, or a BED file comes without a genome that holds its chromosomes.
    """
    tested = np.flatnonzero(rows.split == rows.split_names.index("test")) if "test" in rows.split_names else None
    row = np.arange(len(rows)) if tested is None else tested
    if source.name.lower().endswith(_FASTA):
        genome_file, regions, share = Genome(source), None, None
    else:
        if genome is None:
            raise InputError(
                f"{source} names regions, and no genome is given to read their sequence from; give "
                "--pretraining-genome FASTA"
            )
        genome_file, regions = Genome(genome), _regions(source)
        missing = sorted(set(regions.names) - set(genome_file.contigs))
        if missing:
            raise InputError(
                f"{source} names {missing[0]!r}, which {genome} does not hold (its contigs: "
                f"{', '.join(list(genome_file.contigs)[:3])}); give the genome of the regions as --pretraining-genome"
            )
        share = _nucleotide_share(rows, row, regions)
    pieces = _pieces(genome_file, regions)
    kmer_share, sampling = _kmer_share(_chosen(rows.sequences, row), pieces)
    facts: dict[str, Json] = {"file": source.name, "sha256": file_sha256(source)}
    return PretrainingOverlap(row=row, nucleotide_share=share, kmer_share=kmer_share, sampling=sampling, source=facts)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Regions:
    """Regions of a BED file: their chromosomes by number, and the names of these."""

    names: tuple[str, ...]
    places: Places


def _regions(path: Path) -> _Regions:
    bed = read_bed(path)
    names = tuple(bed.chromosome.dictionary.to_pylist())
    chromosome = bed.chromosome.indices.to_numpy().astype(np.int64)
    places = Places(chromosome=chromosome, start_bp=bed.start_bp, end_bp=np.maximum(bed.end_bp, bed.start_bp + 1))
    return _Regions(names=names, places=places)


def _nucleotide_share(rows: AuditRows, row: Ints, regions: _Regions) -> NDArray[np.float64] | None:
    """The share of each row's nucleotides in the regions; None if the file names no chromosome of the task."""
    if not set(regions.names) & set(rows.chromosome_names):
        return None
    number_of = {name: number for number, name in enumerate(regions.names)}
    extra = iter(range(len(regions.names), len(regions.names) + len(rows.chromosome_names)))
    renumbered = np.array([number_of.get(name, next(extra)) for name in rows.chromosome_names], np.int64)
    mine = Places(chromosome=renumbered[rows.chromosome[row]], start_bp=rows.start_bp[row], end_bp=rows.end_bp[row])
    share: NDArray[np.float64] = mine.covered_bp(regions.places) / np.maximum(mine.end_bp - mine.start_bp, 1)
    return share


def _chosen(sequences: Sequences, row: Ints) -> Sequences:
    """Return some of the sequences."""
    n_codes = np.diff(sequences.offsets)
    chosen = np.zeros(len(sequences), np.bool_)
    chosen[row] = True
    codes = np.concatenate(
        [np.zeros(0, np.uint8), *(sequences.codes[a:b] for a, b in _runs(sequences.offsets, chosen))]
    )
    return Sequences(codes=codes, offsets=np.concatenate([[0], np.cumsum(n_codes[chosen])]))


def _runs(offsets: Ints, chosen: Bools) -> Iterator[tuple[int, int]]:
    """Yield start and end in ``Sequences.codes`` of each run of neighboring chosen sequences."""
    steps = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(np.int8), [0]])))
    for first, last in steps.reshape(-1, 2).tolist():
        yield int(offsets[first]), int(offsets[last])


def _pieces(genome: Genome, regions: _Regions | None) -> Iterator[Bytes]:
    """Yield the codes of the regions, or of the whole file, in pieces that overlap by 30 bp."""
    if regions is None:
        spans = [(name, 0, length) for name, length in genome.contigs.items()]
    else:
        start, end = regions.places.union
        number, shift = start // (1 << 40), start // (1 << 40) * (1 << 40)
        spans = [
            (regions.names[at], a, b)
            for at, a, b in zip(number.tolist(), (start - shift).tolist(), (end - shift).tolist(), strict=True)
        ]
    cut = [
        (name, low, min(low + _PIECE_BP + SEEN_BP - 1, end))
        for name, start, end in spans
        for low in range(start, max(end - SEEN_BP + 1, start + 1), _PIECE_BP)
    ]
    names: Any = pa.array([name for name, _, _ in cut]).dictionary_encode()
    for batch in genome.fetch_iter(names, [a for _, a, _ in cut], [b for _, _, b in cut], rows_per_batch=1):
        yield CODE_OF[batch.bases]


def _kmer_share(sequences: Sequences, pieces: Iterator[Bytes]) -> tuple[NDArray[np.float64], float]:
    """Return the share of each sequence's 31-mers that occur in the pieces, and the fraction of them that was used."""
    sampling = min(1.0, MAX_KMERS / max(1, len(sequences.codes)))
    code, row = _kmers(sequences, sampling)
    known, number = np.unique(code, return_inverse=True)
    seen = np.zeros(len(known), np.bool_)
    table = np.zeros(1 << _TABLE_BITS, np.bool_)
    shift = np.uint64(64 - _TABLE_BITS)
    table[mixed(known) >> shift] = True
    for codes in pieces:
        for start in range(0, len(codes), 1 << 18):
            chunk = codes[start : start + (1 << 18) + SEEN_BP - 1]
            if len(chunk) < SEEN_BP or not len(known):
                continue
            found, _, valid = canonical_kmers(chunk, SEEN_BP)
            found = found[valid]
            found = found[table[mixed(found) >> shift]]
            at = np.minimum(np.searchsorted(known, found), len(known) - 1)
            seen[at[known[at] == found]] = True
    n_kmers = np.bincount(row, minlength=len(sequences))
    n_seen = np.bincount(row[seen[number]], minlength=len(sequences)) if len(row) else n_kmers
    share: NDArray[np.float64] = n_seen / np.maximum(n_kmers, 1)
    return share, sampling


def _kmers(sequences: Sequences, sampling: float) -> tuple[Codes, Ints]:
    """Return the sampled 31-mers of the sequences, and the sequence that each belongs to."""
    codes, rows = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    limit = sampling_limit(sampling)
    for start in range(0, len(sequences.codes), 1 << 18):
        chunk = np.asarray(sequences.codes[start : start + (1 << 18) + SEEN_BP - 1])
        if len(chunk) < SEEN_BP:
            break
        code, _, keep = canonical_kmers(chunk, SEEN_BP)
        keep &= mixed(code) <= limit
        at = np.flatnonzero(keep)
        codes.append(code[at])
        rows.append(sequences.row_of(at + start))
    return np.concatenate(codes), np.concatenate(rows)
