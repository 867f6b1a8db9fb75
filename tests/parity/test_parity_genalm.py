"""GENA-LM gives the rows of BEND's code and of the authors', and says where the two differ.

Where the protocols differ, or BEND's output is not defined:

- The norm behind the last layer (bert-base-lastln-t2t, bert-large-t2t): BEND's copy of the architecture has none,
  so ``bend-2024`` leaves it out; ``bend-hf-1`` and all logits have it, as the authors' code.
- Lower case and IUPAC codes: BEND counts an [UNK] as five nucleotides; here sequences are upper-cased and [UNK] is one.
  Token ids of the nucleotides as they stand are compared all the same.
- A run of N of one token: BEND gives it one row; here each nucleotide has one.
- BigBird after a short input: BEND's object stays on full attention; here each input is read as by a fresh object.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from bend_hf.embedders.genalm import MODELS, GENALMEmbedder
from bend_hf.errors import ConfigError, ModelError
from tests.parity.bert_golden import TOLERANCE, Reference, cases, reference
from tests.parity.golden import arrays, folder_of
from tests.shared_data import SHARED, needs_shared

BEND_NAMES = ("gena-bert_tiny", "gena-bigbird_tiny")
AUTHORS_NAMES = ("gena-lm-bert-tiny-preln", "gena-lm-bert-tiny-preln-lastln")


def is_upper(name: str, golden: Reference) -> bool:
    return golden.is_upper


def is_aligned(name: str, golden: Reference) -> bool:
    return golden.is_upper and golden.upsampled is not None


def has_logits(name: str, golden: Reference) -> bool:
    return golden.is_upper and golden.logits is not None


@cache
def embedder(name: str, protocol: str = "bend-2024") -> GENALMEmbedder:
    return GENALMEmbedder(folder_of(name), protocol=protocol, device="cpu")


@pytest.mark.parametrize(("name", "sequence"), cases(*BEND_NAMES))
def test_token_ids_and_chunks_are_bends(name: str, sequence: str) -> None:
    golden = reference(name, sequence)
    tokenized = embedder(name)._tokenize([golden.sequence])
    np.testing.assert_array_equal(tokenized.ids, golden.ids)
    assert np.diff(tokenized.chunk_starts).tolist() == golden.call_lengths


@pytest.mark.parametrize(("name", "sequence"), cases(*BEND_NAMES, only=is_upper))
def test_embeddings_are_bends(name: str, sequence: str) -> None:
    golden = reference(name, sequence)
    rows = embedder(name)
    np.testing.assert_allclose(rows(golden.sequence, False), golden.raw, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(rows(golden.sequence), golden.removed, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("name", "sequence"), cases(*BEND_NAMES, only=is_aligned))
def test_nucleotide_embeddings_are_bends(name: str, sequence: str) -> None:
    golden = reference(name, sequence)
    rows = embedder(name)(golden.sequence, upsample_embeddings=True)
    np.testing.assert_allclose(rows, golden.upsampled, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("name", "sequence"), cases(*BEND_NAMES))
def test_each_nucleotide_has_a_embedding(name: str, sequence: str) -> None:
    golden = reference(name, sequence)
    assert len(embedder(name)(golden.sequence, upsample_embeddings=True)) == len(golden.sequence)


@needs_shared
@pytest.mark.parametrize("name", BEND_NAMES)
def test_a_run_of_n_has_one_token_and_a_embedding_for_each_nucleotide(name: str) -> None:
    golden = reference(name, "n_all_64")
    assert golden.removed.shape[0] == 1
    rows = embedder(name)(golden.sequence, upsample_embeddings=True)
    np.testing.assert_allclose(rows, golden.removed.repeat(64, axis=0), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("name", "sequence"), cases(*AUTHORS_NAMES))
def test_token_ids_are_the_authors(name: str, sequence: str) -> None:
    golden = reference(name, sequence)
    tokenized = embedder(name, "bend-hf-1")._tokenize([golden.sequence])
    np.testing.assert_array_equal(tokenized.ids, golden.ids)


@pytest.mark.parametrize(("name", "sequence"), cases(*AUTHORS_NAMES, only=is_upper))
def test_embeddings_are_the_authors(name: str, sequence: str) -> None:
    golden = reference(name, sequence)
    rows = embedder(name, "bend-hf-1")(golden.sequence, False)
    np.testing.assert_allclose(rows, golden.raw, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("protocol", ["bend-2024", "bend-hf-1"])
@pytest.mark.parametrize(("name", "sequence"), cases(*AUTHORS_NAMES, only=has_logits))
def test_logits_are_the_authors_in_both_protocols(name: str, sequence: str, protocol: str) -> None:
    golden = reference(name, sequence)
    assert golden.logits is not None
    logits = embedder(name, protocol).logits([golden.sequence])[0]
    np.testing.assert_allclose(logits, golden.logits[1:-1], atol=TOLERANCE, rtol=0)


@needs_shared
def test_loss_is_the_cross_entropy_of_the_authors_logits() -> None:
    golden = reference(AUTHORS_NAMES[0], "len100")
    assert golden.logits is not None
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(golden.logits), torch.tensor(golden.ids), reduction="none"
    )[1:-1]
    loss = embedder(AUTHORS_NAMES[0], "bend-hf-1").loss([golden.sequence])[0]
    np.testing.assert_allclose(loss, expected.numpy(), atol=TOLERANCE, rtol=0)


@needs_shared
def test_the_protocols_differ_by_the_last_norm_alone() -> None:
    name = "gena-lm-bert-tiny-preln-lastln"
    sequence = reference(name, "len100").sequence
    state = torch.load(folder_of(name) / "pytorch_model.bin", weights_only=True)
    scale, shift = (state[f"bert.encoder.last_layer_ln.{part}"].numpy() for part in ("weight", "bias"))
    as_bend, right = (embedder(name, protocol)(sequence) for protocol in ("bend-2024", "bend-hf-1"))
    centred = as_bend - as_bend.mean(1, keepdims=True)
    np.testing.assert_allclose(centred / as_bend.std(1, keepdims=True) * scale + shift, right, atol=TOLERANCE, rtol=0)
    assert np.abs(as_bend - right).max() > 1


@needs_shared
def test_without_a_last_norm_the_protocols_agree() -> None:
    name = "gena-lm-bert-tiny-preln"
    sequence = reference(name, "len100").sequence
    np.testing.assert_array_equal(embedder(name, "bend-2024")(sequence), embedder(name, "bend-hf-1")(sequence))


@needs_shared
def test_a_last_norm_that_the_file_lacks_raises_in_bend_hf_1() -> None:
    with pytest.raises(ModelError, match=r"missing bert\.encoder\.last_layer_ln\.weight"):
        GENALMEmbedder(folder_of("gena-bert_tiny"), protocol="bend-hf-1")


@needs_shared
@pytest.mark.parametrize("copies", [("weight",), ("weight", "bias")])
def test_a_file_without_the_tied_copies_loads_with_its_head(copies: tuple[str, ...], tmp_path: Path) -> None:
    name = "gena-lm-bert-tiny-preln"
    folder = folder_of(name)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    for part in copies:
        del state[f"cls.predictions.decoder.{part}"]
    for file in ("config.json", "tokenizer.json"):
        shutil.copy(folder / file, tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    lean, whole = GENALMEmbedder(tmp_path, device="cpu"), embedder(name)
    sequence = reference(name, "len100").sequence
    np.testing.assert_array_equal(lean.logits([sequence])[0], whole.logits([sequence])[0])
    assert lean.lacking == ()


@needs_shared
def test_tied_weights_count_once() -> None:
    name = "gena-lm-bert-tiny-preln"
    state = torch.load(folder_of(name) / "pytorch_model.bin", weights_only=True)
    copies = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
    beside = ("bert.pooler.", "bert.embeddings.position_ids", "cls.seq_relationship.")
    counted = [v.numel() for key, v in state.items() if key not in copies and not key.startswith(beside)]
    assert embedder(name).n_parameters == sum(counted)


@needs_shared
def test_bigbird_does_not_remember_a_short_input() -> None:
    name = "gena-bigbird_tiny"
    short, long = reference(name, "len12"), reference(name, "long4000")
    rows = GENALMEmbedder(folder_of(name), device="cpu")
    rows(short.sequence)
    after = rows(long.sequence)
    np.testing.assert_allclose(after, long.removed, atol=TOLERANCE, rtol=0)
    assert np.abs(after - arrays(name)["order/len12_then_long4000"]).max() > 1  # what BEND's object gives


@needs_shared
def test_bigbird_ignores_what_shares_a_batch_with_an_input() -> None:
    name = "gena-bigbird_tiny"
    names = ("len1", "len1200", "long2100", "long4000", "n_all_64", "len513")
    sequences = [reference(name, one).sequence for one in names]
    together = GENALMEmbedder(folder_of(name), device="cpu", batch_tokens=8192).embed(sequences)
    for rows, one in zip(together, names, strict=True):
        np.testing.assert_allclose(rows, reference(name, one).removed, atol=TOLERANCE, rtol=0)


@needs_shared
def test_bigbird_is_not_compiled() -> None:
    with pytest.raises(ConfigError, match=r"does not work for the BigBird.*use compile=False"):
        GENALMEmbedder(folder_of("gena-bigbird_tiny"), compile=True)


@needs_shared
@pytest.mark.parametrize("layer", [0, 1])
def test_bigbird_hidden_layers_are_transformers_own(layer: int) -> None:
    from transformers import BigBirdModel

    folder = folder_of("gena-bigbird_tiny")
    golden = reference("gena-bigbird_tiny", "long2100")
    padded = torch.nn.functional.pad(torch.tensor(golden.ids), (0, -len(golden.ids) % 16), value=2)[None]
    mask = (torch.arange(padded.shape[1]) < len(golden.ids)).long()[None]
    with torch.no_grad():
        states = BigBirdModel.from_pretrained(folder).eval()(padded, attention_mask=mask, output_hidden_states=True)
    rows = GENALMEmbedder(folder, layer=layer, device="cpu")(golden.sequence, False)
    expected = states.hidden_states[layer][0, : len(golden.ids)].numpy()
    np.testing.assert_allclose(rows, expected, atol=1e-5, rtol=0)


@needs_shared
def test_bigbird_logits_are_transformers_own(tmp_path: Path) -> None:
    from transformers import BigBirdConfig, BigBirdForMaskedLM

    folder = folder_of("gena-bigbird_tiny")
    shutil.copy(folder / "tokenizer.json", tmp_path)
    torch.manual_seed(0)
    BigBirdForMaskedLM(BigBirdConfig.from_pretrained(folder)).save_pretrained(tmp_path)
    rows = GENALMEmbedder(tmp_path, device="cpu")
    for name in ("len12", "long2100"):
        golden = reference("gena-bigbird_tiny", name)
        fresh = BigBirdForMaskedLM.from_pretrained(tmp_path).eval()
        with torch.no_grad():
            expected = fresh(torch.tensor(golden.ids)[None]).logits[0, 1:-1]
        np.testing.assert_allclose(rows.logits([golden.sequence])[0], expected, atol=1e-5, rtol=0)


@needs_shared
@pytest.mark.parametrize(
    ("key", "config", "last_norm"),
    [
        ("gena-lm-bert-base-t2t", "L12-H768-A12-V32k-preln", False),
        ("gena-lm-bert-base-lastln-t2t", "L12-H768-A12-V32k-preln-lastln", True),
        ("gena-lm-bert-large-t2t", "L24-H1024-A16-V32k-preln-lastln", True),
    ],
)
def test_published_configurations_give_the_declared_models(key: str, config: str, last_norm: bool) -> None:
    from bend_hf.embedders.networks.genalm import GenaLMConfig, GenaLMForMaskedLM

    keys = json.loads((SHARED / "tokenizers" / "gena_configs" / f"{config}.json").read_text())
    with torch.device("meta"):
        model = GenaLMForMaskedLM(GenaLMConfig.from_dict(keys))
    spec = next(spec for spec in MODELS if spec.key == key)
    assert model.config.last_layer_norm is last_norm
    assert (model.config.hidden_size, model.config.max_position_embeddings) == (spec.width, spec.context_tokens)
    assert sum(weight.numel() for weight in model.parameters()) == spec.n_parameters


@needs_shared
def test_sparse_rotary_configurations_raise() -> None:
    from bend_hf.embedders.networks.genalm import GenaLMConfig

    path = SHARED / "tokenizers" / "gena_configs" / "L12-H768-A12-V32k-L4096-preln-sparse-rope.json"
    with pytest.raises(ModelError, match=r"position_embedding_type 'rotary'.*use gena-lm-bigbird-base-t2t"):
        GenaLMConfig.from_dict(json.loads(path.read_text()))
