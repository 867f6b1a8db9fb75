"""GENERator gives the hidden states and scores of the published tokenizer and the Llama of transformers 4.49.

Sequences are upper-cased first, and one whose length is not a multiple of six has A in front, as in the reference's
``raw_left_padded_A``. The reference's ``raw`` ends with one ``<oov>`` instead, which the authors never use.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from bend_hf.embedders import load_embedder
from bend_hf.embedders._tokens import checked_sequences
from bend_hf.embedders.generator import GENERatorEmbedder, SixmerVocabulary
from bend_hf.errors import ModelError
from bend_hf.variants.allele_likelihoods import AlleleLikelihoods
from tests.parity.golden_new import folder_of, golden
from tests.shared_data import needs_shared

pytestmark = needs_shared

NAME = "generator-tiny"
FOLDER = folder_of(NAME)
ATOL = 1e-5


@cache
def embedder() -> GENERatorEmbedder:
    return GENERatorEmbedder(FOLDER, device="cpu")


def whole_cases() -> list[str]:
    """The upper-case sequences of a whole number of 6-mers."""
    return [
        name
        for name in golden().sequence_names(NAME)
        if len(golden().sequences[name]) % 6 == 0 and golden().sequences[name].isupper()
    ]


def padded_cases() -> list[str]:
    return [name for name in golden().sequence_names(NAME) if f"{name}/raw_left_padded_A" in golden().z(NAME).files]


def test_ids_rows_and_scores_of_whole_sequences_equal_the_reference() -> None:
    names = whole_cases()
    assert {"len12", "len600", "n_all_36", "iupac_60"} <= set(names)
    for name in names:
        sequence = golden().sequences[name]
        np.testing.assert_array_equal(embedder().tokenize([sequence]).ids, golden().input_ids(NAME, name))
        np.testing.assert_allclose(embedder()(sequence), golden().embedding(NAME, name), atol=ATOL, rtol=0)
        kept = embedder()(sequence, remove_special_tokens=False)
        np.testing.assert_allclose(kept, golden().embedding(NAME, name, True), atol=ATOL, rtol=0)
        scores = golden().logits(NAME, name)
        if scores is not None:
            np.testing.assert_allclose(embedder().logits([sequence])[0], scores[1:], atol=5e-5, rtol=0)


def test_other_lengths_equal_the_reference_with_a_in_front() -> None:
    names = padded_cases()
    assert {"len7", "len100"} <= set(names)
    for name in names:
        sequence = golden().sequences[name]
        if sequence.isupper():
            ids = golden().extra(NAME, f"{name}/ids_left_padded_A")
            np.testing.assert_array_equal(embedder().tokenize([sequence]).ids, ids)
            expected = golden().extra(NAME, f"{name}/raw_left_padded_A")[1:]
            np.testing.assert_allclose(embedder()(sequence), expected, atol=ATOL, rtol=0)
            rows = embedder()(sequence, upsample_embeddings=True)
            first = (len(sequence) - 1) % 6 + 1
            repeats = [first] + [6] * (len(expected) - 1)
            np.testing.assert_allclose(rows, np.repeat(expected, repeats, axis=0), atol=ATOL, rtol=0)


def test_a_padded_batch_equals_single_runs() -> None:
    names = ["len12", "len600", "n_all_36", "iupac_60"]
    together = embedder().embed([golden().sequences[name] for name in names])
    for rows, name in zip(together, names, strict=True):
        np.testing.assert_allclose(rows, golden().embedding(NAME, name), atol=1e-4, rtol=0)


def test_token_ids_equal_the_published_tokenizer() -> None:
    vocabulary = SixmerVocabulary.read(FOLDER)
    stored = golden().tokenizer_ids()["generator-6mer"]
    compared = 0
    for case in stored:
        text = case["text"]
        if len(text) % 6 == 0 and text.isalpha() and text.isupper():
            assert vocabulary.stream(list(checked_sequences([text]))).ids.tolist() == case["ids_no_special"], text
            compared += 1
    assert compared
    for token, number in golden().tokenizer_ids()["generator-6mer-vocab"].items():
        if len(token) == 6 and set(token) <= set("ACGT"):
            assert vocabulary.stream([token]).ids.tolist() == [number]


def test_hidden_layers_equal_those_of_transformers() -> None:
    sequence = golden().sequences["len600"]
    network = LlamaForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    ids = torch.from_numpy(embedder().tokenize([sequence]).ids)[None].long()
    with torch.no_grad():
        output = network(ids, output_hidden_states=True)
    for layer, expected in enumerate(output.hidden_states):
        rows = GENERatorEmbedder(FOLDER, layer=layer, device="cpu")(sequence)
        np.testing.assert_allclose(rows, expected[0, 1:].numpy(), atol=ATOL, rtol=0)


def test_loss_is_the_cross_entropy_over_the_6mers() -> None:
    sequence = golden().sequences["len12"] + "NACGTA"
    ids = torch.from_numpy(embedder().tokenize([sequence]).ids)[None].long()
    network = LlamaForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    with torch.no_grad():
        log_probabilities = network(ids).logits[0, :-1, 32:].double().log_softmax(-1)
    expected = [-float(log_probabilities[row, ids[0, row + 1] - 32]) for row in range(2)]
    (loss,) = embedder().loss([sequence])
    np.testing.assert_allclose(loss[:2], expected, atol=1e-4, rtol=0)
    assert np.isnan(loss[2])  # <oov>


def test_files_of_the_bare_network_are_read_and_have_no_scores(tmp_path: Path) -> None:
    state = load_file(FOLDER / "model.safetensors")
    bare = {key.removeprefix("model."): value for key, value in state.items() if not key.startswith("lm_head.")}
    save_file(bare, tmp_path / "model.safetensors")
    for name in ("config.json", "vocab.txt"):
        (tmp_path / name).write_text((FOLDER / name).read_text())
    loaded = load_embedder(tmp_path, device="cpu")
    assert isinstance(loaded, GENERatorEmbedder)
    np.testing.assert_array_equal(loaded("ACGTAC"), embedder()("ACGTAC"))
    with pytest.raises(ModelError, match="lacks the language-model head"):
        loaded.logits(["ACGTAC"])


@pytest.mark.parametrize(("dropped", "match"), [("<s>", "it lacks <s>"), ("ACGTAC", "has 4095 tokens of nucleotides")])
def test_another_vocabulary_is_refused(dropped: str, match: str, tmp_path: Path) -> None:
    tokens = (FOLDER / "vocab.txt").read_text().split()
    (tmp_path / "vocab.txt").write_text("\n".join("removed" if token == dropped else token for token in tokens))
    with pytest.raises(ModelError, match=match):
        SixmerVocabulary.read(tmp_path)


def test_a_vocabulary_larger_than_the_network_is_refused(tmp_path: Path) -> None:
    fields = json.loads((FOLDER / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | {"vocab_size": 4000}))
    (tmp_path / "vocab.txt").write_text((FOLDER / "vocab.txt").read_text())
    with pytest.raises(ModelError, match=r"gives the token id 4127, but vocab_size is 4000"):
        GENERatorEmbedder(tmp_path, random_init=True).load()


def test_the_order_of_the_control_tokens_does_not_matter(tmp_path: Path) -> None:
    tokens = (FOLDER / "vocab.txt").read_text().split()
    (tmp_path / "vocab.txt").write_text("\n".join(tokens[:11] + tokens[11:32][::-1] + tokens[32:]))
    ours, theirs = SixmerVocabulary.read(tmp_path), SixmerVocabulary.read(FOLDER)
    np.testing.assert_array_equal(ours.kmer_ids, theirs.kmer_ids)
    assert (ours.unknown, ours.bos, ours.pad) == (theirs.unknown, theirs.bos, theirs.pad) == (0, 1, 3)


@pytest.mark.parametrize("n_bp", [18, 20])
def test_the_likelihood_of_a_variant_is_that_of_its_6mer(n_bp: int) -> None:
    text = golden().sequences["len64"][:n_bp]
    likely = AlleleLikelihoods.of(embedder()).of_bases([text], np.array([n_bp - 1]))
    network = LlamaForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    tokens = [embedder().tokenize([text[:-1] + base]).ids for base in "ACGT"]
    with torch.no_grad():
        scores = network(torch.from_numpy(tokens[0])[None].long()).logits[0, -2]
    expected = np.array([float(scores[ids[-1]]) for ids in tokens])
    np.testing.assert_allclose(likely[0] - likely[0, 0], expected - expected[0], atol=1e-4, rtol=0)
