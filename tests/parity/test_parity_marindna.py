"""MarinDNA gives the token ids of the published tokenizer, and the outputs of the Qwen 3 of transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bend_hf.embedders import load_embedder
from bend_hf.embedders.marindna import MarinDNAEmbedder
from bend_hf.errors import ModelError
from bend_hf.variants.allele_likelihoods import AlleleLikelihoods
from tests.fake_checkpoints import make_tiny
from tests.parity.golden import reader
from tests.parity.stock_networks import check_all, outputs_of, random_checkpoint
from tests.shared_data import GOLDEN, needs_shared


def test_every_layer_the_scores_and_the_losses_equal_those_of_transformers(tmp_path: Path) -> None:
    check_all("marindna", random_checkpoint("marindna", tmp_path))


@pytest.mark.parametrize("tied", [False, True])
def test_a_head_of_its_own_and_a_tied_one_are_read(tied: bool, tmp_path: Path) -> None:
    folder = random_checkpoint("marindna", tmp_path, tie_word_embeddings=tied)
    embedder = load_embedder(folder, device="cpu")
    assert isinstance(embedder, MarinDNAEmbedder)
    scores = outputs_of(folder, embedder.tokenize(["ACGTTGA"]).ids).scores
    np.testing.assert_allclose(embedder.logits(["ACGTTGA"])[0], scores[1:], atol=5e-5)


def test_the_likelihood_of_a_base_is_read_one_token_before_it(tmp_path: Path) -> None:
    folder = random_checkpoint("marindna", tmp_path)
    embedder = load_embedder("marindna", checkpoint=folder, device="cpu")
    likely = AlleleLikelihoods.of(embedder).of_bases(["TTACGTA"], np.array([6]))
    scores = outputs_of(folder, embedder.tokenize(["TTACGTA"]).ids).scores[6, 3:7]
    np.testing.assert_allclose(likely[0] - likely[0, 0], scores - scores[0], atol=1e-4)


def test_long_sequences_are_cut_with_a_bos_each(tmp_path: Path) -> None:
    folder = make_tiny("marindna", tmp_path)
    embedder = load_embedder("marindna", checkpoint=folder, random_init=True)
    tokens = embedder.tokenize(["ACGT" * 15])
    assert np.diff(tokens.chunk_starts).tolist() == [24, 24, 15]  # of which one is [BOS]
    assert (tokens.ids[tokens.chunk_starts[:-1]] == 2).all()


def test_a_tokenizer_without_bos_is_refused(tmp_path: Path) -> None:
    folder = make_tiny("marindna", tmp_path)
    body = json.loads((folder / "tokenizer.json").read_text())
    body["added_tokens"].pop()
    del body["model"]["vocab"]["[BOS]"]
    (folder / "tokenizer.json").write_text(json.dumps(body))
    with pytest.raises(ModelError, match=r"lacks \[BOS\]"):
        load_embedder("marindna", checkpoint=folder, random_init=True).load()


@needs_shared
def test_token_ids_equal_the_published_tokenizer(tmp_path: Path) -> None:
    folder = make_tiny("marindna", tmp_path)
    shutil.copy(GOLDEN / "new" / "tokenizers" / "marin-char-bos" / "tokenizer.json", folder / "tokenizer.json")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "max_position_embeddings": 1024}))
    embedder = load_embedder(folder, random_init=True)
    golden = reader(GOLDEN / "new")
    stored = golden.tokenizer_ids()["marin-char-bos"]
    for name in stored.keys() & golden.sequences.keys():
        ids = stored[name]
        assert embedder.tokenize([golden.sequences[name]]).ids.tolist() == ids, name
