"""GENERanno gives the hidden states and scores of the original code for the same weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from bend_hf.embedders import MODELS, load_embedder
from bend_hf.embedders.generanno import GENERannoEmbedder
from bend_hf.embedders.networks.generanno import GENERannoConfig, GENERannoForMaskedLM
from bend_hf.errors import ModelError
from bend_hf.variants.allele_likelihoods import AlleleLikelihoods
from tests.fake_checkpoints import make_tiny
from tests.parity.golden_new import folder_of, golden
from tests.shared_data import needs_shared

NAME = "generanno-tiny"
FOLDER = folder_of(NAME)
ATOL = 1e-5


@cache
def embedder() -> GENERannoEmbedder:
    return GENERannoEmbedder(FOLDER, device="cpu")


@needs_shared
def test_ids_rows_and_scores_equal_the_reference() -> None:
    for name in golden().sequence_names(NAME):
        sequence = golden().sequences[name]
        np.testing.assert_array_equal(embedder().tokenize([sequence]).ids, golden().input_ids(NAME, name), name)
        rows = embedder()(sequence, remove_special_tokens=False)
        np.testing.assert_allclose(rows, golden().embedding(NAME, name, True), atol=ATOL, rtol=0, err_msg=name)
        np.testing.assert_allclose(embedder()(sequence), golden().embedding(NAME, name), atol=ATOL, rtol=0)
        scores = golden().logits(NAME, name)
        if scores is not None:
            np.testing.assert_allclose(embedder().logits([sequence])[0], scores[1:-1], atol=5e-5, rtol=0)


@needs_shared
def test_a_padded_batch_equals_the_reference() -> None:
    names = golden().index["embedders"][NAME]["batch"]["names"]
    stored, mask = golden().extra(NAME, "batch_right/raw"), golden().extra(NAME, "batch_right/mask").astype(bool)
    together = embedder().embed([golden().sequences[name] for name in names], remove_special_tokens=False)
    for rows, expected, kept in zip(together, stored, mask, strict=True):
        np.testing.assert_allclose(rows, expected[kept], atol=1e-4, rtol=0)


@needs_shared
def test_other_frames_of_special_tokens_equal_the_reference() -> None:
    sequence = golden().sequences["len7"]
    ids = embedder().tokenize([sequence]).ids
    frames = {"raw_nospecial": ids[1:-1], "raw_bos_only": ids[:-1], "raw_bos_eos": [*ids[:-1], 2]}
    for kind, shown in frames.items():
        with torch.no_grad():
            rows = embedder()._network().base_model(torch.tensor([list(shown)])).last_hidden_state[0].numpy()
        np.testing.assert_allclose(rows, golden().extra(NAME, f"len7/{kind}"), atol=ATOL, rtol=0, err_msg=kind)


@needs_shared
def test_the_likelihood_of_a_base_is_read_at_the_mask() -> None:
    scores = golden().extra(NAME, "len64/masked20_logits")
    scores = scores if scores.ndim == 1 else scores[20]
    sequence = golden().sequences["len64"]
    likely = AlleleLikelihoods.of(embedder()).of_bases([sequence], np.array([19]))  # token 20 is base 19
    expected = scores[[32, 33, 34, 40]]
    np.testing.assert_allclose(likely[0] - likely[0, 0], expected - expected[0], atol=1e-4, rtol=0)


@needs_shared
def test_hidden_layers_and_the_loss_follow_from_the_rows_and_scores() -> None:
    sequence = golden().sequences["len12"]
    states = GENERannoEmbedder(FOLDER, layer=3, device="cpu")(sequence)
    np.testing.assert_array_equal(states, embedder()(sequence))
    scores = golden().logits(NAME, "len12")[1:-1].astype(np.float64)
    bases = [32, 33, 34, 40]
    ids = golden().input_ids(NAME, "len12")[1:-1]
    expected = np.log(np.exp(scores[:, bases]).sum(axis=1)) - scores[np.arange(len(ids)), ids]
    np.testing.assert_allclose(embedder().loss([sequence])[0], expected, atol=1e-4)


def test_the_declared_count_is_that_of_the_published_sizes() -> None:
    with torch.device("meta"):
        model = GENERannoForMaskedLM(GENERannoConfig())
    spec = MODELS.get("generanno-eukaryote-0.5b")
    assert sum(weight.numel() for weight in model.parameters()) == spec.n_parameters


def test_a_vocabulary_without_n_and_another_network_are_refused(tmp_path: Path) -> None:
    folder = make_tiny("generanno-eukaryote-0.5b", tmp_path)
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "attention_bias": True}))
    with pytest.raises(ModelError, match=r"config.json has \{'attention_bias': True\}"):
        load_embedder(folder, random_init=True)
    tokens = (folder / "vocab.txt").read_text().split()
    (folder / "vocab.txt").write_text("\n".join("<X>" if token == "N" else token for token in tokens))
    with pytest.raises(ModelError, match="lacks N; expected that of a GENERanno"):
        load_embedder(folder, random_init=True)
