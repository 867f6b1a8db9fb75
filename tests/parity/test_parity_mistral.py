"""GenomeOcean and Mistral-DNA give the outputs of the Mistral and the Mixtral of transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from bend_hf.embedders import load_embedder
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders.mistral import MistralEmbedder, join_experts
from bend_hf.errors import ModelError
from bend_hf.files import write_text
from bend_hf.variants.allele_likelihoods import AlleleLikelihoods
from tests.fake_checkpoints import make_tiny
from tests.parity.stock_networks import check_all, outputs_of, random_checkpoint
from tests.shared_data import SHARED, needs_shared

KEYS = ("genomeocean-4b", "mistral-dna")


@pytest.mark.parametrize("key", KEYS)
def test_every_layer_the_scores_and_the_losses_equal_those_of_transformers(key: str, tmp_path: Path) -> None:
    check_all(key, random_checkpoint(key, tmp_path))


@pytest.mark.parametrize("key", KEYS)
def test_the_likelihood_of_a_variant_is_read_one_token_before_it(key: str, tmp_path: Path) -> None:
    folder = random_checkpoint(key, tmp_path)
    embedder = load_embedder(folder, device="cpu")
    assert isinstance(embedder, MistralEmbedder)
    likely = AlleleLikelihoods.of(embedder).of_alleles(["CCCCG", "CCCCT"], np.array([4, 4]), n_alleles=2)
    ids = embedder.tokenize(["CCCCG", "CCCCT"]).ids.reshape(2, -1)[:, :-1]  # the ends differ in one token
    # the sum over all tokens from the variant on, of which there is one here
    found = [outputs_of(folder, one).scores[4, one[5]] for one in ids]
    assert likely[0, 0] - likely[0, 1] == pytest.approx(float(found[0] - found[1]), abs=1e-4)


def test_the_published_files_of_a_mixtral_hold_each_expert_alone(tmp_path: Path) -> None:
    state = load_file(random_checkpoint("mistral-dna", tmp_path) / "model.safetensors")
    expert = "model.layers.0.block_sparse_moe.experts.3.w2.weight"
    assert expert in state  # the layout that is read
    joined = join_experts(state)
    torch.testing.assert_close(joined["model.layers.0.mlp.experts.down_proj"][3], state[expert])
    del state[expert]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"model.layers.0.block_sparse_moe lacks w2 of expert 3"):
        load_embedder("mistral-dna", checkpoint=tmp_path).load()


def test_the_context_is_that_of_training_and_not_the_number_of_positions(tmp_path: Path) -> None:
    folder = make_tiny("genomeocean-100m", tmp_path)
    fields = read_json(folder / "config.json")
    write_text(folder / "config.json", json.dumps({**fields, "max_position_embeddings": 32_768}))
    embedder = load_embedder("genomeocean-100m", checkpoint=folder, random_init=True)
    tokens = embedder.tokenize(["CCGC" * 600])
    assert np.diff(tokens.chunk_starts).max() == 1024


def test_another_network_is_refused(tmp_path: Path) -> None:
    folder = make_tiny("modernbert-dna", tmp_path)
    with pytest.raises(ModelError, match="has model_type 'modernbert'; expected mistral or mixtral"):
        load_embedder("mistral-dna", checkpoint=folder, random_init=True).load()


@needs_shared
def test_a_published_tokenizer_of_4096_tokens_is_read_as_it_stands(tmp_path: Path) -> None:
    folder = make_tiny("genomeocean-4b", tmp_path)
    published = SHARED / "tokenizers" / "dnabert2" / "tokenizer.json"  # GenomeOcean has one like it
    shutil.copy(published, folder / "tokenizer.json")
    fields = read_json(folder / "config.json")
    wide = {"vocab_size": 4096, "max_position_embeddings": 32_768}
    write_text(folder / "config.json", json.dumps({**fields, **wide}))
    embedder = load_embedder(folder, random_init=True)
    for sequence in ("ACGT" * 50, "A", "GATTACAGATTACCA"):
        assert embedder.tokenize([sequence]).ids.tolist() == Tokenizer.from_file(str(published)).encode(sequence).ids
