"""Score the ClinVar variants of chromosome 20 with a tiny model of each family: zero-shot, supervised, resumed."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from accelerate import Accelerator

from bend_hf.embedders import load_embedder
from bend_hf.embedders._embedder import Embedder
from bend_hf.tasks import VariantSpec
from bend_hf.types import PROTOCOLS, ProtocolName
from bend_hf.variants import (
    SCORES,
    ScoreSettings,
    VariantHeadSettings,
    cross_validate_heads,
    read_variants,
    score_variants,
)
from bend_hf.variants import score as scoring
from bend_hf.variants.batch import VariantModel
from bend_hf.variants.checkpoint import ScoringCheckpoint
from bend_hf.variants.read import VariantFile
from bend_hf.variants.score import ScoringResult
from bend_hf.variants.summary import values_of
from bend_hf.variants.supervised_head import VariantHeadResult
from tests.fake_checkpoints import make_tiny
from tests.shared_data import CHR20, needs_shared

N_VARIANTS = 2128
FAMILIES = (
    "awdlstm",
    "bend-mini",
    "caduceus-ps",
    "dnabert2",
    "dnabert6",
    "gena-lm-bert-base",
    "gena-lm-bigbird-base-t2t",
    "gpn-brassicales",
    "grover",
    "hyenadna-tiny-1k",
    "nt_transformer_human_ref",
    "nt_transformer_v2_50m",
    "onehot",
    "resnetlm",
)
SPEC = VariantSpec(context_bp=6, causal_context_bp=12, stored_context_bp=12)  # tiny models have a context of 24 tokens


@pytest.fixture(scope="module")
def clinvar(tmp_path_factory: pytest.TempPathFactory) -> VariantFile:
    genome = tmp_path_factory.mktemp("chr20") / "GRCh37.fa"
    with gzip.open(CHR20 / "genome.fa.gz") as packed, genome.open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    return read_variants(CHR20 / "variant_effects_disease.bed", genome, context=SPEC)


def score_and_train(source: VariantFile, embedder: Embedder, folder: Path) -> tuple[ScoringResult, VariantHeadResult]:
    checkpoint, accelerator = ScoringCheckpoint(folder), Accelerator(cpu=True)
    settings = ScoreSettings(context=SPEC, keep_embeddings=True)
    scored = score_variants(source, embedder, accelerator, settings, checkpoint=checkpoint)
    heads = VariantHeadSettings(epochs=1, n_folds=2, hidden=8)
    return scored, cross_validate_heads(scored, checkpoint, accelerator, heads)


def tiny_model(key: str, protocol: ProtocolName, folder: Path) -> Embedder:
    if key == "onehot":
        return load_embedder(key, protocol=protocol, device="cpu")
    checkpoint = make_tiny(key, folder / key)
    return load_embedder(key, checkpoint=checkpoint, protocol=protocol, random_init=True, device="cpu")


@needs_shared
# Families differ between the protocols in their embeddings alone, which tests/contract/test_embedders.py compares.
@pytest.mark.parametrize("protocol", [PROTOCOLS[0], pytest.param(PROTOCOLS[1], marks=pytest.mark.long)])
@pytest.mark.parametrize("key", FAMILIES)
def test_every_variant_has_every_score_and_an_interrupted_run_ends_the_same(
    clinvar: VariantFile, key: str, protocol: ProtocolName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = tiny_model(key, protocol, tmp_path)
    scored, trained = score_and_train(clinvar, embedder, tmp_path / "whole")
    assert scored.predictions.item.tolist() == list(range(N_VARIANTS))
    for score in SCORES:
        has_score = np.isfinite(values_of(scored.predictions, score.key))
        assert has_score.all() != (key == "onehot" and score.needs == "likelihood"), score.key
    assert scored.predictions.score is not None
    assert (scored.predictions.score > 0).mean() > 0.99
    for said in trained.predictions.values():
        assert len(said) == N_VARIANTS
        assert said.score is not None
        assert np.isfinite(said.score).all()
    cut, made = tmp_path / "cut", []
    plain = scoring.score_batch

    def fragile(model: VariantModel, given: pa.Table) -> pa.Table:
        made.append(len(given))
        if len(made) == 4:
            raise KeyboardInterrupt
        return plain(model, given)

    monkeypatch.setattr(scoring, "score_batch", fragile)
    with pytest.raises(KeyboardInterrupt):
        score_and_train(clinvar, embedder, cut)
    again, trained_again = score_and_train(clinvar, tiny_model(key, protocol, tmp_path), cut)
    assert sum(made) == N_VARIANTS + made[3]
    assert again.predictions.table() == scored.predictions.table()
    for kind, said in trained.predictions.items():
        assert trained_again.predictions[kind].table() == said.table()
