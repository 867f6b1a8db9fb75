"""GPN, both architectures, gives the embeddings and logits of the original code."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bend_hf.embedders import ConvNetEmbedder, GPNEmbedder
from bend_hf.embedders._nucleotides import NucleotideVocabulary
from bend_hf.embedders.networks.gpn import GPNConfig, GPNForMaskedLM
from bend_hf.errors import ModelError
from bend_hf.types import PROTOCOLS, ProtocolName
from tests.parity.nucleotide_models import EDGES, ORIGINAL, Reference, farthest, ids_of
from tests.shared_data import needs_shared

NAMES = ["gpn-convnet-tiny", "gpn-new-convnet-tiny"]
OLD, NEW = (Reference(root=ORIGINAL, name=name) for name in NAMES)


@needs_shared
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", NAMES)
def test_embeddings_are_the_originals(name: str, protocol: ProtocolName) -> None:
    reference = Reference(root=ORIGINAL, name=name)
    rows = GPNEmbedder(reference.folder, protocol=protocol).embed(
        list(reference.sequences().values()), upsample_embeddings=True
    )
    assert farthest(rows, list(reference.rows().values())) < 1e-4


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_originals(name: str) -> None:
    reference = Reference(root=ORIGINAL, name=name)
    golden = reference.golden
    logits = GPNEmbedder(reference.folder).logits(list(reference.sequences().values()))
    assert farthest(logits, [golden.logits(name, one) for one in reference.sequences()]) < 1e-4


@needs_shared
def test_logits_of_a_masked_nucleotide_are_the_originals() -> None:
    """Position 50 of the hundred nucleotides is masked."""
    embedder = GPNEmbedder(OLD.folder)
    ids = torch.from_numpy(OLD.ids()["len100"].astype(np.int64))[None].clone()
    ids[0, 50] = 1  # [MASK] in tokenizer.json
    with torch.no_grad():
        logits = embedder.model.eval()(ids).logits[0]
    theirs = OLD.golden.extra(OLD.name, "len100/masked50_logits")
    np.testing.assert_allclose(logits.numpy(), theirs, atol=1e-4, rtol=0)


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_token_ids_are_the_originals(name: str) -> None:
    reference = Reference(root=ORIGINAL, name=name)
    embedder = GPNEmbedder(reference.folder, random_init=True)
    for one, ids in reference.ids().items():
        np.testing.assert_array_equal(ids_of(embedder, reference.sequences()[one]), ids, err_msg=one)


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_one_embedding_per_nucleotide_for_every_input(name: str) -> None:
    rows = GPNEmbedder(Reference(root=ORIGINAL, name=name).folder).embed(list(EDGES.values()), upsample_embeddings=True)
    assert [one.shape for one in rows] == [(len(sequence), 64) for sequence in EDGES.values()]
    assert all(np.isfinite(one).all() for one in rows)


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_embeddings_do_not_depend_on_the_batch(name: str) -> None:
    """Beyond the rounding of sums, which is 1e-5 of rows that reach 10."""
    reference = Reference(root=ORIGINAL, name=name)
    sequences = list(reference.sequences().values())
    together = GPNEmbedder(reference.folder, batch_tokens=100_000).embed(sequences)
    alone = GPNEmbedder(reference.folder, batch_tokens=1).embed(sequences)
    assert farthest(together, alone) < 5e-5


@needs_shared
def test_first_architecture_is_bends() -> None:
    np.testing.assert_array_equal(GPNEmbedder(OLD.folder)("ACGTN" * 9), ConvNetEmbedder(OLD.folder)("ACGTN" * 9))


@needs_shared
def test_loss_is_the_cross_entropy_of_the_logits() -> None:
    embedder = GPNEmbedder(NEW.folder)
    logits, loss = embedder.logits(["ACGTN"])[0], embedder.loss(["ACGTN"])[0]
    by_hand = -torch.from_numpy(logits).log_softmax(-1)[range(5), [3, 4, 5, 6, 2]].numpy()
    np.testing.assert_allclose(loss, by_hand, atol=1e-5)


@needs_shared
def test_states_of_the_later_architecture_are_before_the_last_norm() -> None:
    embedder = GPNEmbedder(NEW.folder)
    before, after = GPNEmbedder(NEW.folder, layer=5)("ACGT"), embedder("ACGT")
    assert before.shape == after.shape
    assert np.abs(after.mean(axis=1)).max() < np.abs(before.mean(axis=1)).max()


@pytest.mark.parametrize(
    "shape",
    [
        {"encoder": "convnet"},
        {"encoder": "convnet", "bias": True, "embedding": "embedding", "tie_word_embeddings": True},
        {"encoder": "bytenet", "bias": True},
        {"encoder": "bytenet", "slim": True, "depthwise": True, "mlm_head_transform": False},
    ],
    ids=str,
)
def test_padding_reads_as_the_end_of_the_sequence(shape: dict[str, str | bool]) -> None:
    torch.manual_seed(0)
    config = GPNConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=9, **shape)
    model = GPNForMaskedLM(config).double().eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    ids = torch.randint(3, 7, (2, 30))
    padded = torch.nn.functional.pad(ids, (0, 50), value=0)
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 50))
    torch.testing.assert_close(model(padded, mask).logits[:, :30], model(ids).logits, atol=1e-9, rtol=0)
    assert (model(padded).logits[:, :30] - model(ids).logits).abs().max() > 1e-3


def test_bytenet_layer_computes_what_its_equations_say() -> None:
    torch.manual_seed(0)
    config = GPNConfig(encoder="bytenet", hidden_size=4, num_hidden_layers=2, slim=True, bias=True, rest_kernel_size=3)
    model = GPNForMaskedLM(config).double().eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight)
    layer = model.model.encoder.layer[1]
    x = torch.randn(1, 6, 4, dtype=torch.float64)
    w = {key: value.detach().numpy() for key, value in layer.layer.named_parameters()}
    h = gelu(norm(x[0].numpy(), w["0.weight"], w["0.bias"])) @ w["2.weight"].T + w["2.bias"]
    h = gelu(norm(h, w["3.weight"], w["3.bias"]))
    convolved = np.tile(w["6.bias"], (6, 1))
    for place in range(6):
        for tap in range(3):
            source = place + 2 * (tap - 1)  # the second layer's dilation is 2
            if 0 <= source < 6:
                convolved[place] += w["6.weight"][:, :, tap] @ h[source]
    h = gelu(norm(convolved, w["8.weight"], w["8.bias"])) @ w["10.weight"].T + w["10.bias"]
    with torch.no_grad():
        np.testing.assert_allclose(layer(x, None)[0].numpy(), x[0].numpy() + h, atol=1e-9)


def norm(x: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = x - x.mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * weight + bias)


def gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


@needs_shared
def test_alignment_models_raise(tmp_path: Path) -> None:
    shutil.copy(OLD.folder / "tokenizer.json", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "GPNRoFormer"}))
    with pytest.raises(ModelError, match="has model_type 'GPNRoFormer'; expected 'ConvNet' or 'GPN'"):
        GPNEmbedder(tmp_path)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"encoder": "roformer"}, "has the encoder 'roformer'; known are: bytenet, convnet"),
        ({"embedding": "onehot"}, "has the embedding 'onehot'; did you mean 'one_hot'"),
        ({"n_aux_features": 5}, "needs 5 alignment columns"),
    ],
    ids=["encoder", "embedding", "alignment"],
)
def test_other_kinds_raise(odd: dict[str, str | int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        GPNConfig(**odd)


def test_vocabulary_without_an_unknown_nucleotide_gives_it_the_mask(tmp_path: Path) -> None:
    words = {"[PAD]": 0, "[MASK]": 1, "a": 2, "c": 3, "g": 4, "t": 5}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words, "unk_token": "[UNK]"}}))
    vocabulary = NucleotideVocabulary.read(tmp_path / "tokenizer.json")
    assert vocabulary.table[list(b"ANT")].tolist() == [2, 1, 5]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"[UNK]": 0, "acgt": 1}, "not a tokenizer of single nucleotides; .* found"),
        ({"a": 0, "c": 1, "g": 2, "t": 3}, "neither an unknown token nor a mask"),
    ],
    ids=["words", "no unknown"],
)
def test_other_tokenizers_raise(tmp_path: Path, words: dict[str, int], message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words, "unk_token": "[UNK]"}}))
    with pytest.raises(ModelError, match=message):
        NucleotideVocabulary.read(tmp_path / "tokenizer.json")
