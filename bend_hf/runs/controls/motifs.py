"""Motifs: how well each known transcription factor binds anywhere in a window, and a logistic regression on that.

The matrices are those of JASPAR CORE for vertebrates, which the package ``pyjaspar`` ships. The feature of a matrix is
its best log-odds score in the window, on either strand, against a uniform background. ``motifs+kmers`` adds k-mers.

A matrix that prefers ACG finds it as ACG and as CGT; each of the three positions gives log2(0.917 / 0.25) = 1.87 bits:

>>> acg = log_odds([{"A": [10, 0, 0], "C": [0, 10, 0], "G": [0, 0, 10], "T": [0, 0, 0]}], pseudocount=1.25)
>>> [round(score, 2) for score in best_scores(["TTACGT", "CGTNNN"], acg).ravel().tolist()]
[5.62, 5.62]
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.runs.controls._features import KmerFeatures, WindowBatch, Windows, chosen_windows, kmer_features
from bend_hf.runs.controls._linear import SEARCH, learner_on
from bend_hf.runs.controls._spec import ControlSpec, Provenance, needs_training
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import LabelKind, MultiLabel, SequenceClass
from bend_hf.types import Floats, Ints, Labels

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

RELEASE: Final = "JASPAR2026"  # the latest that pyjaspar 4.0 ships
INSTALL: Final = "install it with 'pip install \"bend-hf[motifs]\"'"
PSEUDOCOUNT: Final = 0.8  # per position, over four letters: Nishida et al., Nucleic Acids Research 37, 939 (2009)
_KMERS: Final = kmer_features(5, both_strands=True)  # those of the control 'kmer'
_LETTERS: Final = "ACGT"
_SCORES_AT_ONCE: Final = 1 << 23  # positions times matrices, 32 MiB


@dataclass(frozen=True, kw_only=True)
class Matrices:
    """Position weight matrices, in the order of their features.

    Attributes:
        weights: Log-odds in bits of each matrix, float32, shape (4, width), letters in the order A C G T.
    """

    weights: tuple[Floats, ...]

    def __len__(self) -> int:
        return len(self.weights)

    def of_width(self) -> Iterator[tuple[Ints, Floats]]:
        """Yield the matrices of each width: their indices, and their log-odds, shape (matrices, 4, width)."""
        widths = np.array([one.shape[1] for one in self.weights])
        for width in np.unique(widths):
            chosen = np.flatnonzero(widths == width)
            yield chosen, np.stack([self.weights[index] for index in chosen])


def log_odds(counts: Sequence[Mapping[str, Sequence[float]]], *, pseudocount: float = PSEUDOCOUNT) -> Matrices:
    """Turn counts of letters at each position into log-odds against a uniform background, in bits.

    Args:
        counts: For each matrix, the counts of A, C, G and T by position.
        pseudocount: Added to each position, a quarter to each letter.
    """
    found = []
    for one in counts:
        counted = np.array([one[letter] for letter in _LETTERS], np.float64) + pseudocount / 4
        found.append(np.log2(counted / counted.sum(axis=0) / 0.25).astype(np.float32))
    return Matrices(weights=tuple(found))


def version() -> str | None:
    """Return the version of pyjaspar, with the release of its database that is used; None if it is not installed."""
    try:
        return f"{importlib.metadata.version('pyjaspar')} ({RELEASE})"
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def vertebrate_matrices() -> Matrices:
    """Read the latest version of each matrix of JASPAR CORE for vertebrates, ordered by identifier."""
    from pyjaspar import jaspardb

    motifs = jaspardb(release=RELEASE).fetch_motifs(collection="CORE", tax_group=["vertebrates"])
    return log_odds([motif.counts for motif in sorted(motifs, key=lambda motif: str(motif.matrix_id))])


def best_scores(sequences: Sequence[str], matrices: Matrices) -> Floats:
    """Return the best log-odds score of each matrix in each sequence, on either strand.

    A letter other than A C G T scores 0, as the background does. A sequence that is shorter than a matrix is read as if
    it went on with N.

    Args:
        sequences: Upper-case sequences; most efficient if they have one length.
        matrices: The matrices.

    Returns:
        Float32, shape (sequences, matrices).
    """
    import torch

    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    found = np.zeros((len(sequences), len(matrices)), np.float32)
    longest = max([int(lengths.max(initial=0)), *(one.shape[1] for one in matrices.weights)])
    codes = np.full((len(sequences), longest), ord("N"), np.uint8)
    inside = np.arange(longest) < lengths[:, None]
    codes[inside] = np.frombuffer("".join(sequences).encode("ascii"), np.uint8)
    x_BAL = torch.from_numpy(codes[:, None] == np.frombuffer(_LETTERS.encode(), np.uint8)[:, None])
    with torch.inference_mode():
        for index, weights in matrices.of_width():
            filters = torch.from_numpy(np.concatenate([weights, weights[:, ::-1, ::-1]]))  # A C G T reversed is T G C A
            last = torch.from_numpy(np.maximum(lengths - weights.shape[2], 0))
            step = max(1, _SCORES_AT_ONCE // (longest * len(filters)))
            for start in range(0, len(sequences), step):
                here = slice(start, start + step)
                found[here, index] = _best(x_BAL[here], filters, last[here]).numpy()
    return found


def _best(x_BAL: torch.Tensor, filters: torch.Tensor, last_B: torch.Tensor) -> torch.Tensor:
    """Return the best score of each matrix, shape (B, matrices); filters hold both strands, one after the other."""
    import torch

    score_BFL = torch.nn.functional.conv1d(x_BAL.float(), filters)
    n_positions = score_BFL.shape[2]
    if int(last_B.min()) + 1 < n_positions:  # starts that run past a shorter sequence
        score_BFL.masked_fill_(torch.arange(n_positions) > last_B[:, None, None], -torch.inf)
    best_BF = score_BFL.amax(dim=2)
    return torch.maximum(*best_BF.chunk(2, dim=1))


class MotifWindows:
    """The windows of a split with the best score of each matrix, and the fractions of k-mers if they are asked for.

    Args:
        dataset: The split; each row is one window.
        kind: Kind of the labels.
        matrices: The matrices.
        kmers: The k-mers that are counted too; None for none.
    """

    def __init__(self, dataset: Dataset, kind: LabelKind, matrices: Matrices, kmers: KmerFeatures | None) -> None:
        self._dataset, self._kind, self._matrices, self._kmers = dataset, kind, matrices, kmers
        self._windows = Windows(dataset, kind, kmers)
        self._sequences = dataset.select_columns(["sequence"]).with_format("arrow")

    @property
    def counts(self) -> Ints:
        """Windows of each row: one."""
        return self._windows.counts

    @property
    def n_features(self) -> int:
        """Number of features per window."""
        return len(self._matrices) + self._windows.n_features

    def batches(self) -> Iterator[WindowBatch]:
        """Yield all windows in order, in batches of rows."""
        for batch in self._windows.batches():
            texts = self._sequences[batch.rows]["sequence"].to_pylist()
            scores = best_scores([text.upper() for text in texts], self._matrices)
            yield replace(batch, features=np.concatenate([scores, batch.features], axis=1))

    def sample(self, most: int, seed: int) -> tuple[Floats, Labels]:
        """Return features and targets of some windows; the same ones that ``Windows.sample`` draws.

        Only what is drawn is scanned.
        """
        chosen = chosen_windows(len(self._windows), most, seed)
        drawn = self._dataset if len(chosen) == len(self._dataset) else self._dataset.select(chosen)
        batches = list(MotifWindows(drawn, self._kind, self._matrices, self._kmers).batches())
        features = np.concatenate([batch.features for batch in batches])
        target = np.concatenate([batch.target for batch in batches])
        has_label = target >= 0 if target.ndim == 1 else (target >= 0).all(axis=1)
        return features[has_label], target[has_label]


def _needs_whole_windows(task: TaskSpec) -> str | None:
    if (reason := needs_training(task)) is not None:
        return reason
    if isinstance(task.label, MultiLabel | SequenceClass):
        return None
    return f"the labels of {task.key} do not belong to whole windows, in which motifs are searched"


_PROVENANCE: Final = Provenance(
    version=version,
    install=INSTALL,
    source="https://jaspar.elixir.no",
    license="CC-BY-4.0 (matrices), MIT (pyjaspar)",
    trained_on="binding sites from SELEX, ChIP-seq and other experiments; peaks of the test split may be among them",
)

CONTROLS = (
    ControlSpec(
        key="motifs",
        title="Motifs",
        text="Logistic regression on the best score of each JASPAR CORE vertebrate matrix in a window, either strand.",
        why_not=_needs_whole_windows,
        predict=learner_on(lambda task, split: MotifWindows(split, task.label, vertebrate_matrices(), None)),
        head="LogisticRegression",
        search=SEARCH,
        provenance=_PROVENANCE,
    ),
    ControlSpec(
        key="motifs+kmers",
        title="Motifs and k-mers",
        text="Logistic regression on the features of the controls motifs and kmer together.",
        why_not=_needs_whole_windows,
        predict=learner_on(lambda task, split: MotifWindows(split, task.label, vertebrate_matrices(), _KMERS)),
        head="LogisticRegression",
        search=SEARCH,
        provenance=_PROVENANCE,
    ),
)
