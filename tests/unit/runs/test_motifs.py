"""Motifs: scores against plain counting, the windows they are learned on, and the data base of an extra."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from bend_hf.config import RunConfig
from bend_hf.data.sequences import reverse_complement
from bend_hf.errors import ControlError
from bend_hf.runs.controls import CONTROLS, motifs
from bend_hf.runs.controls._features import Windows, kmer_features
from bend_hf.runs.controls.motifs import Matrices, MotifWindows, best_scores, log_odds, vertebrate_matrices
from bend_hf.runs.run import run_controls
from bend_hf.tasks import TASKS
from bend_hf.tasks._labels import MultiLabel
from bend_hf.types import Floats
from tests.tiny import write_data

TWO = MultiLabel(names=("a", "b"))
CONSENSUS = {"A": [8, 0, 0, 0], "C": [0, 8, 0, 0], "G": [0, 0, 8, 0], "T": [0, 0, 0, 8]}  # ACGT reads ACGT on both
LEFT_HANDED = {"A": [3, 0, 1], "C": [1, 4, 0], "G": [0, 0, 2], "T": [0, 0, 1]}


def matrices_of(widths: tuple[int, ...] = (2, 3, 3, 5), seed: int = 0) -> Matrices:
    rng = np.random.default_rng(seed)
    counts = [dict(zip("ACGT", rng.integers(0, 9, (4, width)).tolist(), strict=True)) for width in widths]
    return log_odds(counts)


def plainly(sequence: str, weights: Floats) -> float:
    """The best score of a matrix, position by position."""
    width = weights.shape[1]
    padded = sequence.ljust(width, "N")
    strands = (weights, weights[::-1, ::-1])
    found = [
        sum(strand["ACGT".index(letter), k] for k, letter in enumerate(padded[at : at + width]) if letter in "ACGT")
        for at in range(len(padded) - width + 1)
        for strand in strands
    ]
    return float(max(found))


def test_log_odds_by_hand() -> None:
    (found,) = log_odds([LEFT_HANDED], pseudocount=0.0 + 4.0).weights  # one more of each letter
    assert found.shape == (4, 3)
    assert found[:, 0].tolist() == pytest.approx(np.log2(np.array([4, 2, 1, 1]) / 8 / 0.25).tolist())


def test_a_consensus_scores_the_most_that_its_matrix_allows_on_either_strand() -> None:
    matrices = log_odds([LEFT_HANDED])
    most = matrices.weights[0].max(axis=0).sum()
    assert best_scores(["TTTTACGTTT"], matrices)[0, 0] == pytest.approx(most)
    assert best_scores([reverse_complement("TTTTACGTTT")], matrices)[0, 0] == pytest.approx(most)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("ACGTNR", min_size=1, max_size=12), min_size=1, max_size=5), st.integers(0, 99))
def test_scores_are_those_of_plain_counting(sequences: list[str], seed: int) -> None:
    matrices = matrices_of(seed=seed)
    expected = [[plainly(one, weights) for weights in matrices.weights] for one in sequences]
    assert best_scores(sequences, matrices) == pytest.approx(np.array(expected), abs=1e-4)


def test_scores_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = ["ACGTTGCA" * 4, "GGGTACCA", "TTTTTTTTTTTTTTTA"]
    together = best_scores(sequences, matrices_of())
    monkeypatch.setattr(motifs, "_SCORES_AT_ONCE", 1)
    assert best_scores(sequences, matrices_of()) == pytest.approx(together, abs=1e-5)
    alone = np.concatenate([best_scores([one], matrices_of()) for one in sequences])
    assert alone == pytest.approx(together, abs=1e-5)


def split(n: int) -> Dataset:
    rng = np.random.default_rng(1)
    return Dataset.from_dict(
        {
            "sequence": ["".join(rng.choice(list("ACGTacgt"), 30)) for _ in range(n)],
            "labels": [[int(one)] if one < 2 else [] for one in rng.integers(0, 3, n)],
        },
        features=Features({"sequence": Value("string"), "labels": List(Value("int16"))}),
    )


def test_a_sample_draws_the_windows_that_k_mers_draw() -> None:
    dataset, kmers = split(40), kmer_features(1, both_strands=True)
    both, target = MotifWindows(dataset, TWO, matrices_of(), kmers).sample(15, seed=4)
    alone, same_target = Windows(dataset, TWO, kmers).sample(15, seed=4)
    assert both.shape == (15, 4 + 2)
    assert both[:, 4:].tolist() == alone.tolist()
    assert target.tolist() == same_target.tolist()
    (batch,) = MotifWindows(dataset, TWO, matrices_of(), kmers).batches()
    assert {tuple(row) for row in both.tolist()} <= {tuple(row) for row in batch.features.tolist()}


def test_the_controls_fit_tasks_of_whole_windows() -> None:
    whole = ["chromatin_accessibility", "cpg_methylation", "histone_modification"]
    for key in ("motifs", "motifs+kmers"):
        assert [task.key for task in TASKS if CONTROLS.get(key).why_not(task) is None] == whole


def test_without_pyjaspar_the_control_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ControlError, match=r"'motifs' needs is not installed; .*bend-hf\[motifs\]"):
        run_controls(RunConfig(task=("cpg_methylation",), data="no such folder", out=tmp_path), ["motifs"])


PACKAGE = """
class Motif:
    def __init__(self, matrix_id, counts):
        self.matrix_id, self.counts = matrix_id, counts

class jaspardb:
    def __init__(self, release):
        self.release = release

    def fetch_motifs(self, collection, tax_group):
        assert (self.release, collection, tax_group) == ({release!r}, "CORE", ["vertebrates"])
        return [Motif("MA0002.1", {second!r}), Motif("MA0001.3", {first!r})]
"""


def test_what_the_data_base_holds_becomes_a_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package of the same shape stands in for pyjaspar; its motifs come in any order."""
    package = PACKAGE.format(release=motifs.RELEASE, first=LEFT_HANDED, second=CONSENSUS)
    for name, text in {
        "pyjaspar/__init__.py": package,
        "pyjaspar-4.0.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pyjaspar\nVersion: 4.0.0\n",
    }.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "pyjaspar", raising=False)
    vertebrate_matrices.cache_clear()
    try:
        assert [one.shape[1] for one in vertebrate_matrices().weights] == [3, 4]
        data = write_data(tmp_path / "data", ("cpg_methylation",), n=20)
        config = RunConfig(task=("cpg_methylation",), data=str(data), out=tmp_path / "out", seeds=(0,))
        found = run_controls(config, ["motifs", "motifs+kmers"])
    finally:
        vertebrate_matrices.cache_clear()
        sys.modules.pop("pyjaspar", None)
    assert [one.record.model["width"] for one in found] == [2, 2 + 512]
    stated = found[0].record.model["provenance"]
    assert isinstance(stated, dict)
    assert stated["version"] == f"4.0.0 ({motifs.RELEASE})"
    assert stated["license"] == "CC-BY-4.0 (matrices), MIT (pyjaspar)"


@pytest.mark.skipif(
    importlib.util.find_spec("pyjaspar") is None, reason="needs pyjaspar: pip install 'bend-hf[motifs]'"
)
def test_jaspar_knows_the_site_of_ctcf_on_both_strands() -> None:
    """The site is the consensus of matrix MA0139 in a run of T and A."""
    matrices, site = vertebrate_matrices(), f"{'T' * 15}TGGCCACCAGGGGGCGCTA{'T' * 15}"
    assert len(matrices) == 1019
    plus, minus, other = best_scores([site, reverse_complement(site), "TA" * 24 + "T"], matrices)
    assert plus.max() > 20
    assert plus == pytest.approx(minus, abs=1e-4)
    assert other[plus.argmax()] < 5
