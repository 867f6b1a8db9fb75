"""Variant distances are those of BEND's own script, by its index and by the token that holds the variant.

Where the two differ, or BEND's numbers are not a function of its input:

- DNABERT, k = 3: BEND's number 256 is the k-mer that begins at the variant; the one in whose middle it stands is 255.
- AWD-LSTM and HyenaDNA with 511: the base before the variant on rows of one base, a distance of rounding.
- BigBird: over 144 tokens a fresh object is block-sparse, BEND's long-lived one is not after its first short input.
"""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator
from numpy.typing import NDArray

from bend_hf.embedders import load_embedder
from bend_hf.embedders._embedder import Embedder
from bend_hf.evaluation.predictions import Predictions
from bend_hf.variants import ScoreSettings, read_variants, score_variants
from bend_hf.variants.allele_embeddings import tokens_overlap
from bend_hf.variants.bend_csv import HEADER, write_bend_csv
from tests.shared_data import GOLDEN, needs_shared

KEYS = {
    "convnet_tiny": "resnetlm",
    "dnabert6_tiny": "dnabert6",
    "dnabert3_tiny": "dnabert3",
    "nt_tiny": "nt_transformer_human_ref",
    "gena-bert_tiny": "gena-lm-bert-base",
    "gena-bigbird_tiny": "gena-lm-bigbird-base-t2t",
    "grover_tiny": "grover",
    "awdlstm_tiny": "awdlstm",
    "hyenadna-tiny-1k-seqlen": "hyenadna-tiny-1k",
    "dnabert2_tiny": "dnabert2",
}
NAMES = (*KEYS, "awdlstm_tiny@512", "hyenadna-tiny-1k-seqlen@512")
TOLERANCE = 1e-5
NOT_THE_VARIANTS_OWN = ("dnabert3_tiny", "awdlstm_tiny", "hyenadna-tiny-1k-seqlen")
SPARSE_FROM_TOKENS = 144  # nine blocks of 16: 5 + 2 * num_random_blocks of the checkpoint


@cache
def golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / "index.json").read_text())["variants"][f"{name}/upper"]
    return found


@cache
def reference(name: str) -> list[dict[str, str]]:
    with (GOLDEN / golden(name)["csv"]).open() as file:
        return list(csv.DictReader(file))


@cache
def embedder(name: str) -> Embedder:
    plain = name.split("@")[0]
    return load_embedder(KEYS[plain], checkpoint=GOLDEN / "ckpt" / plain, device="cpu")


@cache
def scored(name: str, embedding_idx: int | None) -> Predictions:
    folder = GOLDEN / "variants"
    source = read_variants(folder / "variants.bed", folder / "genome_upper.fa")
    settings = ScoreSettings(likelihood=False, embedding_idx=embedding_idx)
    return score_variants(source, embedder(name), Accelerator(cpu=True), settings).predictions


def expected(name: str) -> NDArray[np.float64]:
    return np.array([float(row["distance"]) for row in reference(name)])


def comparable(name: str) -> NDArray[np.bool_]:
    """Return which of BEND's numbers depend on the variant alone."""
    n = len(reference(name))
    if name != "gena-bigbird_tiny":
        return np.ones(n, np.bool_)
    predictions = scored(name, None)
    source = read_variants(GOLDEN / "variants" / "variants.bed", GOLDEN / "variants" / "genome_upper.fa")
    table = source.table(predictions.item)
    shown = [
        text[at - 256 : at + 257]
        for text, at in zip(*(table[c].to_pylist() for c in ("sequence", "variant_offset")), strict=True)
    ]
    return np.diff(embedder(name).tokenize(shown).chunk_starts) <= SPARSE_FROM_TOKENS


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_distance_by_bends_index_is_bends(name: str) -> None:
    found = scored(name, golden(name)["embedding_idx"])
    assert found.score is not None
    same = comparable(name)
    assert same.sum() >= 28
    np.testing.assert_allclose(found.score[same], expected(name)[same], atol=TOLERANCE, rtol=0)


@needs_shared
@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_THE_VARIANTS_OWN])
def test_the_token_that_holds_the_variant_is_found_without_an_index(name: str) -> None:
    found = scored(name, None)
    assert found.score is not None
    same = comparable(name)
    np.testing.assert_allclose(found.score[same], expected(name)[same], atol=TOLERANCE, rtol=0)


@needs_shared
def test_dnabert3_takes_the_kmer_centered_on_the_variant() -> None:
    own, by_index = scored("dnabert3_tiny", None), scored("dnabert3_tiny", 255)
    np.testing.assert_array_equal(own.score, by_index.score)


@needs_shared
def test_only_overlapping_tokens_are_counted_in_tokens() -> None:
    assert [name for name in KEYS if tokens_overlap(embedder(name))] == ["dnabert6_tiny", "dnabert3_tiny"]


@needs_shared
@pytest.mark.parametrize("name", ["dnabert6_tiny", "awdlstm_tiny@512"])
def test_csv_is_that_of_bends_script(name: str, tmp_path: Path) -> None:
    path = write_bend_csv(scored(name, golden(name)["embedding_idx"]), tmp_path / "own.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert path.read_text().splitlines()[0] == ",".join(HEADER)
    for mine, theirs in zip(rows, reference(name), strict=True):
        assert {k: v for k, v in mine.items() if k != "distance"} == {
            k: v for k, v in theirs.items() if k != "distance"
        }
        assert float(mine["distance"]) == pytest.approx(float(theirs["distance"]), abs=TOLERANCE)
