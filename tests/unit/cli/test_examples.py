"""The example models: their embeddings, one per nucleotide, and the make target that runs them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bend_hf.embedders import load_embedder

ROOT = Path(__file__).resolve().parents[3]
SEQUENCES = ["A", "ACGTACGT", "CGCGNNACGTGCATGCCG" * 30]


def embeddings_of(name: str) -> list[np.ndarray]:
    return load_embedder(str(ROOT / "examples" / f"{name}.py")).embed(SEQUENCES)


def test_equal_kmers_have_equal_embeddings_everywhere() -> None:
    short, eight, long = embeddings_of("random_sixmers")
    assert [len(rows) for rows in (short, eight, long)] == [len(sequence) for sequence in SEQUENCES]
    np.testing.assert_array_equal(short[0], eight[0])  # both k-mers extend past an end
    assert not np.array_equal(eight[2], eight[0])
    np.testing.assert_array_equal(long[20], long[38])  # the sequence repeats every 18 nucleotides
    kmers = {SEQUENCES[2][at - 2 : at + 4] for at in range(2, len(SEQUENCES[2]) - 3)}
    assert len(np.unique(long, axis=0)) == len({kmer for kmer in kmers if "N" not in kmer}) + 1


def test_composition_equals_plain_counts() -> None:
    rows, sequence = embeddings_of("surroundings")[2], SEQUENCES[2]
    for at in (0, 7, 200, len(sequence) - 1):
        expected = []
        for window_bp in (16, 128, 1024):
            low, high = max(at - window_bp // 2, 0), min(at + window_bp // 2, len(sequence))
            pairs = sum(sequence[place : place + 2] == "CG" for place in range(low, high))
            expected += [4 * n / (high - low) for n in (*(sequence[low:high].count(x) for x in "ACG"), pairs)]
        np.testing.assert_allclose(rows[at], expected, rtol=1e-5)


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here; install it to try the Makefile")
def test_one_word_adds_a_model_to_the_report_of_one_chromosome(tmp_path: Path) -> None:
    (tmp_path / "genome.fa.gz").write_bytes(b"")
    flags = [f"DATA={tmp_path}", f"RESULTS={tmp_path / 'results'}", "MODELS=onehot mine"]
    done = subprocess.run(
        ["make", "-n", "report-chr20", *flags], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    genes, windows, variants, whole = (line for line in done.stdout.splitlines() if "bend-hf run" in line)
    assert "--task gene_finding --model onehot mine" in genes
    assert "--task chromatin_accessibility --model onehot mine" in windows
    assert variants.split("--task")[1].split() == ["variant_effects_disease", "--model", "onehot", "mine"]
    assert "--task gene_finding --model onehot --protocol bend-hf-1 --decode grammar" in whole
    assert "--controls" not in whole  # they would be repeated under another protocol
    assert f"bend-hf report {tmp_path / 'results'} --out chr20_report" in done.stdout
