"""Whether predicted genes have the right structure: exact coding exons, splice sites, whole sequences and frames.

Predictions and references are the nine classes of BEND's gene finding, one per nucleotide. Runs of equal labels become
intervals, and intervals are compared, so that a nucleotide that is missing from an exon costs the whole exon.

>>> import evaluate
>>> evaluate.load("bend/gene_structure").compute(predictions=[8, 0, 0, 8], references=[8, 0, 0, 8])["exon_f1"]
1.0
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike, NDArray

MAIN = "exon_f1"  # name of the result that stands for the metric
PERFECT = 1.0  # its best value
HIGHER_IS_BETTER = True
RANGE = (0.0, 1.0)  # what it can be; a record with another value is refused

N_CLASSES = 9  # 0 to 3 cds, donor, intron and acceptor of the plus strand, 4 to 7 of the minus strand, 8 non-coding
TOLERANCE_BP = 5  # how far a splice site may lie from the true one to count in the second comparison
LENGTHS_BP = (1, 50, 100, 200, 500)  # the shortest exon of each class of lengths

_OTHER, _EXON, _INTRON = 0, 1, 2
_KIND = np.array([_EXON, _INTRON, _INTRON, _INTRON, _EXON, _INTRON, _INTRON, _INTRON, _OTHER], np.int8)
_STRAND = np.array([1, 1, 1, 1, -1, -1, -1, -1, 0], np.int8)
_UNKNOWN = 1 << 10  # a letter that is not A, C, G or T: no codon with it is a stop
_BASES = np.full(256, _UNKNOWN, np.int64)
for _number, _letter in enumerate(b"ACGT"):
    _BASES[_letter] = _BASES[_letter + 32] = _number  # upper and lower case
_STOPS = tuple(16 * a + 4 * b + c for a, b, c in ((3, 0, 0), (3, 0, 2), (3, 2, 0)))  # TAA, TAG, TGA

# What is compared: each has a number of true, of predicted and of right ones.
NAMES = (
    "exon",
    "splice_site",
    f"splice_site_{TOLERANCE_BP}bp",
    "row",
    *(f"exon_{low}_to_{high - 1}bp" for low, high in pairwise(LENGTHS_BP)),
    f"exon_from_{LENGTHS_BP[-1]}bp",
)
COUNTS = ("rows", "rows_right", "whole_genes", "frame_errors", "genes_read", "genes_with_stop")
N_COUNTS = 3 * len(NAMES) + len(COUNTS)  # columns of `counts_of_rows`

_DESCRIPTION = """
Exact coding exons, splice sites and whole sequences: sensitivity, precision and F1, as gene finders are compared by.
Predicted genes whose coding length is not a multiple of three, or which hold a stop codon, are counted too. An exon is
a run of coding labels of one strand; it is right if both of its ends are.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Predicted class numbers from 0 to 8, one per nucleotide: coding, donor, intron and acceptor of the plus
        strand, the same of the minus strand, non-coding. Rows follow one another.
    references: True class numbers, of the same shape; `ignore_index` if a nucleotide is not to be scored.
    lengths (sequence of `int`, optional): Nucleotides of each row; by default all belong to one row. No interval
        continues from one row into the next.
    sequence (`str` or `bytes`, optional): The nucleotides of all rows, from which in-frame stops are read.
    ignore_index (`int` or `None`): References of this value are left out, by default -100; intervals end there as they
        do at the end of a row. None scores all.

Returns:
    `exon_f1` (`float`): F1 of exact coding exons; 0.0 if there are exons but none is right; nan if there are none.
    `names` (`list` of `str`): What the lists below are of: exons, splice sites, splice sites within 5 bp, rows with
        genes that are right in whole, exons by length.
    `sensitivity`, `precision`, `f1` (`list` of `float`): Right ones of the true ones, right ones of the predicted ones,
        and their harmonic mean; nan if the ratio is 0 / 0.
    `true`, `predicted`, `right` (`list` of `int`): The counts behind them.
    `rows`, `rows_right` (`int`): Number of rows, and of those whose exons and introns all are right.
    `whole_genes`, `frame_errors` (`int`): Predicted genes that begin and end with an exon within their row, and those
        of them whose coding length is not a multiple of three.
    `genes_read`, `genes_with_stop` (`int`): Only with `sequence`: whole predicted genes, and those of them with a stop
        codon in frame before their last codon.

Example:
    >>> import evaluate
    >>> gene_structure = evaluate.load("bend/gene_structure")
    >>> found = gene_structure.compute(
    ...     predictions=[0, 0, 8, 4, 4, 8], references=[0, 0, 8, 4, 8, 8], lengths=[3, 3]
    ... )
    >>> found["right"][0], found["predicted"][0], found["rows_right"]
    (1, 2, 1)
"""

_CITATION = """
@article{burset1996evaluation,
    author = {Burset, Mois{\\'e}s and Guig{\\'o}, Roderic},
    title = {Evaluation of Gene Structure Prediction Programs},
    journal = {Genomics},
    volume = {34},
    number = {3},
    pages = {353--367},
    year = {1996},
    doi = {10.1006/geno.1996.0298}
}
"""


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Intervals of nucleotides, ordered by place.

    Attributes:
        row: Number of the row, shape (intervals,).
        start_bp: First nucleotide, counted over all rows.
        end_bp: Position after the last nucleotide.
        strand: 1 or -1.
    """

    row: NDArray[np.int64]
    start_bp: NDArray[np.int64]
    end_bp: NDArray[np.int64]
    strand: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.row)

    def where(self, chosen: NDArray[np.bool_]) -> Intervals:
        """Return some of the intervals."""
        parts = (self.row, self.start_bp, self.end_bp, self.strand)
        row, start, end, strand = (one[chosen] for one in parts)
        return Intervals(row=row, start_bp=start, end_bp=end, strand=strand)


@dataclass(frozen=True, kw_only=True)
class Structure:
    """The genes of some rows.

    Attributes:
        exons: Coding exons.
        introns: Introns with their splice sites.
        transcripts: Stretches of one strand that hold an exon, from the first to the last exon or intron.
        is_whole: Whether a transcript begins and ends with an exon, and both ends are known, shape (transcripts,).
        transcript_of_exon: The transcript of each exon.
        donors: Place of each donor, as twice its position and 1 on the minus strand, ascending; the end of an intron
            that the row cuts is not known and is no splice site.
        acceptors: The same of the acceptors.
    """

    exons: Intervals
    introns: Intervals
    transcripts: Intervals
    is_whole: NDArray[np.bool_]
    transcript_of_exon: NDArray[np.int64]
    donors: NDArray[np.int64]
    acceptors: NDArray[np.int64]


def structure_of(
    labels: NDArray[Any], lengths: NDArray[np.int64], scored: NDArray[np.bool_] | None = None
) -> Structure:
    """Read the intervals of some rows from their labels.

    Args:
        labels: Classes from 0 to 8, shape (nucleotides,).
        lengths: Nucleotides of each row, shape (rows,).
        scored: Nucleotides that count, shape (nucleotides,); None if all do. Rows end at the others.
    """
    kind, strand = _KIND[labels], _STRAND[labels]
    if scored is not None:
        kind, strand = np.where(scored, kind, np.int8(_OTHER)), np.where(scored, strand, np.int8(0))
    n = len(kind)
    edge = np.zeros(n + 1, np.bool_)  # between two nucleotides, if nothing is known of what is on the other side
    edge[np.concatenate([[0], np.cumsum(lengths)])] = True
    if scored is not None and not scored.all():
        hidden = np.flatnonzero(~scored)
        edge[hidden] = edge[hidden + 1] = True
    code = kind * np.int8(4) + strand
    begins = edge[:-1].copy()
    begins[1:] |= code[1:] != code[:-1]
    start = np.flatnonzero(begins)
    end = np.append(start[1:], n)[: len(start)]
    row = np.repeat(np.arange(len(lengths)), lengths)[start]
    runs = Intervals(row=row, start_bp=start, end_bp=end, strand=strand[start])
    of_run = kind[start]
    first = np.ones(len(start), np.bool_)  # of a stretch of one strand
    first[1:] = edge[start[1:]] | (runs.strand[1:] != runs.strand[:-1])
    stretch = np.cumsum(first) - 1
    opens = np.flatnonzero(first)
    closes = np.append(opens[1:], len(start))[: len(opens)] - 1
    coding = np.zeros(len(opens), np.bool_)
    coding[stretch[of_run == _EXON]] = True
    whole = (of_run[opens] == _EXON) & (of_run[closes] == _EXON) & ~edge[start[opens]] & ~edge[end[closes]]
    transcripts = Intervals(row=row[opens], start_bp=start[opens], end_bp=end[closes], strand=runs.strand[opens]).where(
        coding
    )
    introns = runs.where(of_run == _INTRON)
    left, right = 2 * introns.start_bp, 2 * (introns.end_bp - 1)
    plus, known_left, known_right = introns.strand > 0, ~edge[introns.start_bp], ~edge[introns.end_bp]
    return Structure(
        exons=runs.where(of_run == _EXON),
        introns=introns,
        transcripts=transcripts,
        is_whole=whole[coding],
        transcript_of_exon=(np.cumsum(coding) - 1)[stretch[of_run == _EXON]],
        donors=np.sort(np.concatenate([left[plus & known_left], right[~plus & known_right] + 1])),
        acceptors=np.sort(np.concatenate([right[plus & known_right], left[~plus & known_left] + 1])),
    )


def counts_of_rows(
    predictions: NDArray[Any],
    references: NDArray[Any],
    lengths: NDArray[np.int64],
    *,
    sequence: NDArray[np.uint8] | None = None,
    ignore_index: int | None = -100,
) -> NDArray[np.int64]:
    """Count what `results_of` needs in each row; counts of several rows are summed.

    Args:
        predictions: Classes from 0 to 8, shape (nucleotides,).
        references: The same; `ignore_index` if a nucleotide is not scored.
        lengths: Nucleotides of each row, shape (rows,).
        sequence: The letters as bytes, shape (nucleotides,); None if they are not known.
        ignore_index: References of this value are left out; None scores all.

    Returns:
        Shape (rows, `N_COUNTS`): true, predicted and right ones of each of `NAMES`, then `COUNTS`.
    """
    scored = np.ones(len(references), np.bool_) if ignore_index is None else references != ignore_index
    true_labels = np.where(scored, references, N_CLASSES - 1)
    labels = np.where(scored, predictions, N_CLASSES - 1)
    true, found = structure_of(true_labels, lengths, scored), structure_of(labels, lengths, scored)
    row_ends = np.cumsum(lengths)
    n_rows = len(lengths)

    def per_row(row: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(row, minlength=n_rows)

    right = _in_both(found.exons, true.exons)
    columns = [per_row(true.exons.row), per_row(found.exons.row), per_row(found.exons.row[right])]
    for tolerance_bp in (0, TOLERANCE_BP):
        parts = np.zeros((3, n_rows), np.int64)
        for one, other in ((true.donors, found.donors), (true.acceptors, found.acceptors)):
            kept = _pairs(one, other, row_ends, tolerance_bp)
            for index, places in enumerate((one, other, other[kept])):
                parts[index] += per_row(row_ends.searchsorted(places >> 1, "right"))
        columns += list(parts)
    wrong = (_KIND[labels] != _KIND[true_labels]) | (_STRAND[labels] != _STRAND[true_labels])
    of_nucleotide = np.concatenate([[0], np.cumsum(wrong)])
    n_scored = np.concatenate([[0], np.cumsum(scored)])
    bounds = np.concatenate([[0], row_ends])
    is_scored = n_scored[bounds[1:]] > n_scored[bounds[:-1]]
    is_right = (of_nucleotide[bounds[1:]] == of_nucleotide[bounds[:-1]]) & is_scored
    columns += [columns[0] > 0, columns[1] > 0, is_right & (columns[0] > 0)]
    class_true, class_found = (
        np.searchsorted(LENGTHS_BP, one.exons.end_bp - one.exons.start_bp, "right") - 1 for one in (true, found)
    )
    for number in range(len(LENGTHS_BP)):
        of_length = class_found == number
        columns += [
            per_row(true.exons.row[class_true == number]),
            per_row(found.exons.row[of_length]),
            per_row(found.exons.row[of_length & right]),
        ]
    genes = found.transcripts.where(found.is_whole)
    coding_bp = np.bincount(
        found.transcript_of_exon, found.exons.end_bp - found.exons.start_bp, len(found.transcripts)
    ).astype(np.int64)[found.is_whole]
    columns += [is_scored, is_right, per_row(genes.row), per_row(genes.row[coding_bp % 3 > 0])]
    stops = np.zeros(0, np.int64)
    if sequence is not None:
        stops = genes.row[_has_stop(found, sequence)]
    columns += [per_row(genes.row if sequence is not None else stops), per_row(stops)]
    return np.stack([np.asarray(one, np.int64) for one in columns], axis=1)


def _in_both(one: Intervals, other: Intervals) -> NDArray[np.bool_]:
    """Which intervals of one structure are intervals of the other; none of one strand share their first nucleotide."""
    key, known = (2 * each.start_bp + (each.strand < 0) for each in (one, other))
    if not len(known):
        return np.zeros(len(one), np.bool_)
    at = np.minimum(known.searchsorted(key), len(known) - 1)
    same: NDArray[np.bool_] = (known[at] == key) & (other.end_bp[at] == one.end_bp)
    return same


def _pairs(
    true: NDArray[np.int64], found: NDArray[np.int64], row_ends: NDArray[np.int64], tolerance_bp: int
) -> NDArray[np.bool_]:
    """Which predicted sites pair with a true one: each is the nearest of the other, on one strand of one row.

    Args:
        true: Places as `Structure` holds them.
        found: The same of the predictions.
        row_ends: End of each row.
        tolerance_bp: Sites further apart are no pair.
    """
    kept = np.zeros(len(found), np.bool_)
    for strand in (0, 1):
        index = np.flatnonzero(found % 2 == strand)
        site, known = found[index] >> 1, true[true % 2 == strand] >> 1
        if not len(site) or not len(known):
            continue
        nearest, back = _nearest(site, known), _nearest(known, site)
        mutual = back[nearest] == np.arange(len(site))
        same_row = row_ends.searchsorted(site, "right") == row_ends.searchsorted(known[nearest], "right")
        kept[index] = mutual & same_row & (np.abs(site - known[nearest]) <= tolerance_bp)
    return kept


def _nearest(places: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """The nearest of sorted places for each place, the left one of two at the same distance."""
    after = np.minimum(others.searchsorted(places), len(others) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(places - others[before]) <= np.abs(others[after] - places), before, after)


def _has_stop(found: Structure, sequence: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each whole transcript has a stop codon in frame, before its last codon."""
    number = np.where(found.is_whole, np.cumsum(found.is_whole) - 1, -1)[found.transcript_of_exon]
    exons, gene_of_exon = found.exons.where(number >= 0), number[number >= 0]
    n_genes = int(found.is_whole.sum())
    if not len(exons):
        return np.zeros(n_genes, np.bool_)
    size = exons.end_bp - exons.start_bp
    offset = np.cumsum(size) - size
    place = np.repeat(exons.start_bp - offset, size) + np.arange(size.sum())
    gene = np.repeat(gene_of_exon, size)
    n_coding = np.bincount(gene_of_exon, size, n_genes).astype(np.int64)
    first = np.cumsum(n_coding) - n_coding
    at = np.arange(len(place)) - first[gene]  # position in the coding sequence, from the left
    minus = np.repeat(exons.strand < 0, size)
    source = np.where(minus, first[gene] + n_coding[gene] - 1 - at, np.arange(len(place)))
    base = _BASES[sequence[place[source]]]
    base = np.where(minus & (base < _UNKNOWN), 3 - base, base)
    codon = np.flatnonzero((at % 3 == 0) & (at + 3 < n_coding[gene]))
    stop = np.isin(16 * base[codon] + 4 * base[codon + 1] + base[codon + 2], _STOPS)
    has: NDArray[np.bool_] = np.bincount(gene[codon[stop]], minlength=n_genes) > 0
    return has


def f1_of(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Compute the F1 of each of `NAMES`.

    Args:
        counts: Sums of the rows of `counts_of_rows`, shape (..., `N_COUNTS`).

    Returns:
        Shape (..., names); nan if there is neither a true nor a predicted one.
    """
    parts = np.asarray(counts, np.float64)[..., : 3 * len(NAMES)]
    parts = parts.reshape(*parts.shape[:-1], len(NAMES), 3)
    both = parts[..., 0] + parts[..., 1]
    return np.divide(2 * parts[..., 2], both, out=np.full(both.shape, np.nan), where=both > 0)


def results_of(counts: NDArray[np.int64], *, with_sequence: bool) -> dict[str, Any]:
    """Compute the result of summed counts as plain Python numbers.

    Args:
        counts: Sum of the rows of `counts_of_rows`, shape (`N_COUNTS`,).
        with_sequence: Whether the sequence was known.
    """
    true, predicted, right = counts[: 3 * len(NAMES)].reshape(len(NAMES), 3).T
    with np.errstate(invalid="ignore"):  # 0 / 0 is nan, as documented; n / 0 cannot occur
        sensitivity, precision = right / true, right / predicted
    f1 = f1_of(counts)
    rest = dict(zip(COUNTS, counts[3 * len(NAMES) :].tolist(), strict=True))
    if not with_sequence:
        rest = {name: n for name, n in rest.items() if name not in ("genes_read", "genes_with_stop")}
    return {
        MAIN: float(f1[0]),
        "names": list(NAMES),
        "sensitivity": sensitivity.tolist(),
        "precision": precision.tolist(),
        "f1": f1.tolist(),
        "true": true.tolist(),
        "predicted": predicted.tolist(),
        "right": right.tolist(),
        **rest,
    }


class GeneStructure(evaluate.Metric):
    """Keep the labels as they are given, and compare intervals once at the end."""

    def __init__(self, config_name: str | None = None, num_process: int = 1, **loading: object) -> None:
        """Take the arguments of `evaluate.Metric`, for one process."""
        if num_process != 1:
            raise ValueError(
                f"num_process is {num_process}, but this metric compares intervals in one process; gather the labels "
                "of whole rows first (accelerator.gather_for_metrics)"
            )
        super().__init__(config_name=config_name, num_process=num_process, **loading)
        self._reset()

    def _info(self) -> evaluate.MetricInfo:
        """Describe the metric and its inputs."""
        label = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": label, "references": label}),
            reference_urls=["https://doi.org/10.1006/geno.1996.0298"],
        )

    def _reset(self) -> None:
        self._batches: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def __len__(self) -> int:
        """Number of nucleotides that were added since the last result, including ignored ones."""
        return sum(len(references) for _, references in self._batches)

    def add(
        self,
        *,
        prediction: ArrayLike | None = None,
        reference: ArrayLike | None = None,
        predictions: ArrayLike | None = None,
        references: ArrayLike | None = None,
    ) -> None:
        """Add one nucleotide, or those of one row.

        `evaluate.combine` passes them under the plural names.
        """
        prediction = np.atleast_1d(_as_array(predictions if prediction is None else prediction))
        reference = np.atleast_1d(_as_array(references if reference is None else reference))
        self.add_batch(predictions=prediction, references=reference)

    def add_batch(self, *, predictions: ArrayLike, references: ArrayLike) -> None:
        """Add nucleotides, which follow those that were added before. A batch that raises adds nothing."""
        predicted, true = _labels(predictions, "predictions"), _labels(references, "references")
        if predicted.shape != true.shape or predicted.ndim != 1:
            raise ValueError(
                f"predictions have shape {predicted.shape}, references {true.shape}; expected one class number per "
                "nucleotide in both. Join rows with numpy.concatenate, and give their lengths"
            )
        self._batches.append((predicted, true))

    def compute(
        self,
        *,
        predictions: ArrayLike | None = None,
        references: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        sequence: str | bytes | NDArray[np.uint8] | None = None,
        ignore_index: int | None = -100,
    ) -> dict[str, Any]:
        """Score the added labels and those given here. Afterwards the metric is empty, even after an error."""
        try:
            if predictions is not None or references is not None:
                if predictions is None or references is None:
                    raise ValueError("predictions and references go together, but one of them is None")
                self.add_batch(predictions=predictions, references=references)
            if not self._batches:
                raise ValueError("nothing to score; give predictions and references, or call add_batch first")
            predicted, true = (np.concatenate(parts) for parts in zip(*self._batches, strict=True))
        finally:
            self._reset()
        _check_classes(predicted, true, ignore_index)
        sizes = _lengths(lengths, len(true))
        letters = None if sequence is None else _letters(sequence, len(true))
        counts = counts_of_rows(predicted, true, sizes, sequence=letters, ignore_index=ignore_index)
        return results_of(counts.sum(axis=0), with_sequence=letters is not None)


def _as_array(values: object) -> NDArray[Any]:
    """Convert a list, an array, a torch tensor or a column of a `datasets.Dataset` to a NumPy array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    elif isinstance(values, list | tuple) and values and hasattr(values[0], "detach"):
        values = [_as_array(value) for value in values]
    elif isinstance(values, Sequence) and not isinstance(values, list | tuple):
        values = values[:]  # read a datasets.Column at once; NumPy would read it item by item
    elif isinstance(values, Iterator | Set):
        raise ValueError(f"a {type(values).__name__} has no length and order; give a list or an array")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        n_masked = np.count_nonzero(np.ma.getmaskarray(values))
        raise ValueError(
            f"{n_masked:,} of {values.size:,} values are masked, and a mask is not read; select the items that count, "
            "or give their references ignore_index"
        )
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(
            "rows have different lengths, so they are not an array; join them with numpy.concatenate, and give lengths"
        ) from None


def _labels(values: ArrayLike, what: str) -> NDArray[Any]:
    array = _as_array(values)
    if array.size == 0:
        return array.astype(np.int64).reshape(-1)
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"{what} are {array.dtype}, shape {array.shape}; expected class numbers as integers "
            "(take the argmax of scores over classes first)"
        )
    return array.astype(np.int64 if array.dtype == np.uint64 else array.dtype)  # which is a copy


def _check_classes(predicted: NDArray[Any], true: NDArray[Any], ignore_index: int | None) -> None:
    scored = np.ones(len(true), np.bool_) if ignore_index is None else true != ignore_index
    for what, values in (("prediction", predicted), ("reference", true)):
        wrong = np.flatnonzero(scored & ((values < 0) | (values >= N_CLASSES)))
        if len(wrong):
            raise ValueError(
                f"{what} {values[wrong[0]]} of nucleotide {wrong[0]:,} ({len(wrong):,} such); expected class numbers "
                f"from 0 to {N_CLASSES - 1}, or {ignore_index} (ignore_index) as a reference that is not scored"
            )


def _lengths(lengths: ArrayLike | None, n: int) -> NDArray[np.int64]:
    if lengths is None:
        return np.array([n], np.int64)
    sizes = _as_array(lengths)
    whole = sizes.ndim == 1 and (sizes.dtype.kind in "iu" or not sizes.size)
    if not whole or (sizes.size and sizes.min() < 0) or int(sizes.sum()) != n:
        raise ValueError(
            f"lengths are {sizes.dtype} of shape {sizes.shape} with the sum {sizes.sum()}; expected one whole number "
            f"from 0 on per row, which add up to the {n:,} nucleotides"
        )
    return sizes.astype(np.int64)


def _letters(sequence: str | bytes | NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    if isinstance(sequence, str):
        sequence = sequence.encode("ascii", errors="replace")
    letters = np.frombuffer(sequence, np.uint8) if isinstance(sequence, bytes) else np.asarray(sequence, np.uint8)
    if letters.shape != (n,):
        raise ValueError(f"sequence has {math.prod(letters.shape):,} letters; expected one for each of {n:,} labels")
    return letters
