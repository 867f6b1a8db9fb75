"""ModernGENA and ModernBERT-DNA give the hidden states and scores of the ModernBERT of transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from bend_hf.embedders import MODELS, load_embedder
from bend_hf.variants.allele_likelihoods import AlleleLikelihoods
from tests.fake_checkpoints import make_tiny
from tests.parity.stock_networks import check_all, outputs_of, random_checkpoint
from tests.shared_data import GOLDEN, SHARED, needs_shared


@pytest.mark.parametrize("key", ["moderngena-large", "modernbert-dna"])
def test_every_layer_the_scores_and_the_losses_equal_those_of_transformers(key: str, tmp_path: Path) -> None:
    check_all(key, random_checkpoint(key, tmp_path))


def test_the_rotary_base_of_the_configuration_counts(tmp_path: Path) -> None:
    folder = random_checkpoint("moderngena-large", tmp_path)
    published = load_embedder("moderngena-large", checkpoint=folder, device="cpu")("ACGTTGACGATTACGTGGA")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "global_rope_theta": 160000.0}))
    other = load_embedder("moderngena-large", checkpoint=folder, device="cpu")("ACGTTGACGATTACGTGGA")
    assert np.abs(published - other).max() > 1e-3


def test_the_likelihood_of_a_variant_is_read_at_the_mask(tmp_path: Path) -> None:
    folder = random_checkpoint("modernbert-dna", tmp_path)
    embedder = load_embedder("modernbert-dna", checkpoint=folder, device="cpu")
    likely = AlleleLikelihoods.of(embedder).of_alleles(["CCCCGCCC", "CCCCTCCC"], np.array([4, 4]), n_alleles=2)
    tokens = embedder.tokenize(["CCCCGCCC"]).ids.copy()
    bases = embedder.tokenize(["G", "T"]).ids[[1, 4]]
    tokens[5] = embedder.mask_id
    scores = outputs_of(folder, tokens).scores[5]
    assert likely[0, 0] - likely[0, 1] == pytest.approx(float(scores[bases[0]] - scores[bases[1]]), abs=1e-4)


def test_the_declared_count_is_that_of_the_published_sizes() -> None:
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    ids = {"pad_token_id": 3, "cls_token_id": 1, "bos_token_id": 1, "sep_token_id": 2, "eos_token_id": 2}
    sizes = {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 2624}
    with torch.device("meta"):
        model = ModernBertForMaskedLM(ModernBertConfig(vocab_size=32768, **sizes, **ids))
        model.tie_weights()
    spec = MODELS.get("moderngena-large")
    assert sum(weight.numel() for weight in model.parameters()) == spec.n_parameters
    assert model.config.hidden_size == spec.width


@needs_shared
def test_published_tokens_of_gena_lm_frame_and_cover_every_sequence(tmp_path: Path) -> None:
    published = SHARED / "tokenizers" / "gena_t2t_1000h_multi_32k" / "tokenizer.json"
    make_tiny("moderngena-large", tmp_path)
    shutil.copy(published, tmp_path / "tokenizer.json")
    fields = json.loads((tmp_path / "config.json").read_text())
    ids = {"pad_token_id": 3, "cls_token_id": 1, "bos_token_id": 1, "sep_token_id": 2, "eos_token_id": 2}
    wide = {"vocab_size": 32768, "max_position_embeddings": 1024}
    (tmp_path / "config.json").write_text(json.dumps({**fields, **ids, **wide}))
    embedder = load_embedder(tmp_path, random_init=True, device="cpu")
    backend = Tokenizer.from_file(str(published))
    sequences = json.loads((GOLDEN / "new" / "sequences.json").read_text())
    for name in ("len1", "len100", "n_runs_256", "n_all_36", "n_lead_trail"):
        tokens = embedder.tokenize([sequences[name]])
        assert tokens.ids.tolist() == backend.encode(sequences[name]).ids, name
        assert tokens.embedding_bp.sum() == len(sequences[name])
    assert embedder.mask_id == 4
