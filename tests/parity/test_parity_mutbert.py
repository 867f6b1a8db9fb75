"""MutBERT gives the hidden states and scores of the original code for the same weights."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bend_hf.embedders import MODELS, load_embedder
from bend_hf.embedders.mutbert import MutBertEmbedder
from bend_hf.embedders.networks.mutbert import MutBertConfig, MutBertForMaskedLM
from bend_hf.errors import ModelError
from bend_hf.types import Floats
from bend_hf.variants.allele_likelihoods import AlleleLikelihoods
from tests.fake_checkpoints import make_tiny
from tests.parity.golden_new import folder_of, golden
from tests.shared_data import needs_shared

NAMES = ("mutbert-tiny", "mutbert-tiny-long")
ATOL = 1e-5


@cache
def embedder_of(name: str) -> MutBertEmbedder:
    return MutBertEmbedder(folder_of(name), device="cpu")


def rows_of(name: str, inputs: torch.Tensor, mask: torch.Tensor | None = None) -> Floats:
    with torch.no_grad():
        rows: Floats = embedder_of(name)._network().base_model(inputs, mask).last_hidden_state.numpy()
    return rows


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_rows_of_every_length_equal_the_reference(name: str) -> None:
    cut = 0
    embedder = embedder_of(name)
    for case in golden().sequence_names(name):
        ids = golden().input_ids(name, case)
        expected = golden().embedding(name, case, True)
        np.testing.assert_allclose(rows_of(name, torch.from_numpy(ids)[None].long())[0], expected, atol=ATOL, rtol=0)
        sequence = golden().sequences[case]
        if len(ids) > embedder._context_tokens or not sequence.isupper():  # sequences are upper-cased first
            cut += 1
            continue
        np.testing.assert_array_equal(embedder.tokenize([sequence]).ids, ids, case)
        np.testing.assert_allclose(embedder(sequence, remove_special_tokens=False), expected, atol=ATOL, rtol=0)
        scores = golden().logits(name, case)
        if scores is not None:
            np.testing.assert_allclose(embedder.logits([sequence])[0], scores[1:-1], atol=5e-5, rtol=0)
    assert 0 < cut < len(golden().sequence_names(name))


@needs_shared
def test_positions_of_a_long_sequence_are_scaled_and_a_chunk_may_be_longer_by_the_factor() -> None:
    assert embedder_of("mutbert-tiny")._context_tokens == 512
    assert embedder_of("mutbert-tiny-long")._context_tokens == 256  # trained on 128, factor 2
    tokens = embedder_of("mutbert-tiny-long").tokenize(["ACGT" * 100])
    assert np.diff(tokens.chunk_starts).tolist() == [256, 148]


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_a_padded_batch_equals_the_reference(name: str) -> None:
    stored = {kind: golden().extra(name, f"batch/{kind}") for kind in ("ids", "mask", "raw")}
    rows = rows_of(name, torch.from_numpy(stored["ids"]).long(), torch.from_numpy(stored["mask"]).long())
    kept = stored["mask"].astype(bool)
    np.testing.assert_allclose(rows[kept], stored["raw"][kept], atol=1e-4, rtol=0)


@needs_shared
def test_a_long_sequence_changes_no_other_one() -> None:
    name = "mutbert-tiny-long"
    texts = [golden().sequences[case] for case in ("len100", "len128", "n_runs_256")]
    embedder = embedder_of(name)
    embedder.embed(texts)
    expected = golden().embedding(name, "len100")
    np.testing.assert_allclose(embedder.embed(texts)[0], expected, atol=ATOL, rtol=0)
    np.testing.assert_allclose(embedder(texts[0]), expected, atol=ATOL, rtol=0)
    assert np.abs(golden().extra(name, "len100/raw_after_long")[1:-1] - expected).max() > 0.1  # the original's state


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_rows_of_frequencies_equal_the_reference(name: str) -> None:
    mixed = torch.from_numpy(golden().extra(name, "len100/soft_input"))[None]
    np.testing.assert_allclose(rows_of(name, mixed)[0], golden().extra(name, "len100/soft_raw"), atol=ATOL, rtol=0)


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_the_likelihood_of_a_base_is_read_at_the_mask(name: str) -> None:
    scores = golden().extra(name, "len100/masked20_logits")
    scores = (scores if scores.ndim == 1 else scores[20])[5:9]
    likely = AlleleLikelihoods.of(embedder_of(name)).of_bases([golden().sequences["len100"]], np.array([19]))
    np.testing.assert_allclose(likely[0] - likely[0, 0], scores - scores[0], atol=1e-4, rtol=0)


@needs_shared
def test_tokenizer_json_counts_and_not_vocab_txt() -> None:
    assert (folder_of("mutbert-tiny") / "vocab.txt").read_text().split()[5:] == ["A", "T", "C", "G"]
    assert embedder_of("mutbert-tiny").tokenize(["ACGTN"]).ids.tolist() == [1, 5, 6, 7, 8, 0, 2]
    assert (embedder_of("mutbert-tiny").pad_id, embedder_of("mutbert-tiny").mask_id) == (3, 4)


@needs_shared
def test_a_file_without_the_copies_of_the_head_gives_the_same_scores(tmp_path: Path) -> None:
    folder = folder_of("mutbert-tiny")
    state = load_file(folder / "model.safetensors")
    save_file({key: value for key, value in state.items() if ".decoder." not in key}, tmp_path / "model.safetensors")
    for file in ("config.json", "tokenizer.json"):
        shutil.copy(folder / file, tmp_path / file)
    fewer = load_embedder(tmp_path, device="cpu")
    assert isinstance(fewer, MutBertEmbedder)
    np.testing.assert_array_equal(fewer.logits(["ACGTTGA"])[0], embedder_of("mutbert-tiny").logits(["ACGTTGA"])[0])


@needs_shared
def test_the_pickle_holds_the_same(tmp_path: Path) -> None:
    for file in ("config.json", "tokenizer.json", "pytorch_model.bin"):
        shutil.copy(folder_of("mutbert-tiny") / file, tmp_path / file)
    np.testing.assert_array_equal(load_embedder(tmp_path, device="cpu")("ACGT"), embedder_of("mutbert-tiny")("ACGT"))


@needs_shared
def test_layers_and_losses(tmp_path: Path) -> None:
    sequence = golden().sequences["len12"]
    network = embedder_of("mutbert-tiny")._network().base_model
    ids = golden().input_ids("mutbert-tiny", "len12")
    with torch.no_grad():
        states = network(torch.from_numpy(ids)[None].long(), None, True).hidden_states
    for layer, expected in enumerate(states):
        rows = MutBertEmbedder(folder_of("mutbert-tiny"), layer=layer, device="cpu")(sequence)
        np.testing.assert_allclose(rows, expected[0, 1:-1].numpy(), atol=ATOL, rtol=0)
    scores = golden().logits("mutbert-tiny", "len12")[1:-1].astype(np.float64)
    expected_loss = np.log(np.exp(scores[:, 5:9]).sum(axis=1)) - scores[np.arange(12), ids[1:-1]]
    np.testing.assert_allclose(embedder_of("mutbert-tiny").loss([sequence])[0], expected_loss, atol=1e-4)


def test_the_declared_count_is_that_of_the_published_sizes() -> None:
    with torch.device("meta"):
        model = MutBertForMaskedLM(MutBertConfig())
    assert sum(weight.numel() for weight in model.parameters()) == MODELS.get("mutbert").n_parameters
    # the published file also holds two copies, of the output matrix and of its bias
    assert len(model.state_dict()) + 2 == 203


@pytest.mark.parametrize("scaling", [{"type": "yarn", "factor": 2.0}, {"type": "dynamic", "factor": 0.5}])
def test_another_scaling_is_refused(scaling: dict[str, object], tmp_path: Path) -> None:
    folder = make_tiny("mutbert", tmp_path)
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "rope_scaling": scaling}))
    with pytest.raises(ModelError, match="expected null, or type linear or dynamic"):
        load_embedder(folder, random_init=True)


def test_linear_scaling_divides_positions(tmp_path: Path) -> None:
    from bend_hf.embedders.networks.mutbert import rotary_tables

    plain = MutBertConfig()
    scaled = MutBertConfig(rope_scaling={"type": "linear", "factor": 4.0})
    lengths = torch.tensor([40])
    for one, other in zip(rotary_tables(plain, 10, lengths), rotary_tables(scaled, 40, lengths), strict=True):
        torch.testing.assert_close(one, other[:, :, ::4])
