"""BEND's convolutional language model gives BEND's embeddings, whatever the batch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from bend_hf.embedders import ConvNetEmbedder
from bend_hf.embedders.networks.convnet import ConvNetConfig, ConvNetForMaskedLM
from bend_hf.errors import ModelError
from bend_hf.types import PROTOCOLS, ProtocolName
from tests.parity.nucleotide_models import BEND, EDGES, Reference, farthest, ids_of
from tests.shared_data import needs_shared

NAMES = ["convnet_tiny", "convnet_tiny8"]
TINY = Reference(root=BEND, name="convnet_tiny8")


@needs_shared
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", NAMES)
def test_embeddings_are_bends(name: str, protocol: ProtocolName) -> None:
    reference = Reference(root=BEND, name=name)
    embedder = ConvNetEmbedder(reference.folder, protocol=protocol)
    rows = embedder.embed(list(reference.sequences().values()), upsample_embeddings=True)
    assert farthest(rows, list(reference.rows().values())) < 1e-4


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_token_ids_are_bends(name: str) -> None:
    reference = Reference(root=BEND, name=name)
    embedder = ConvNetEmbedder(reference.folder, random_init=True)
    for one, ids in reference.ids().items():
        np.testing.assert_array_equal(ids_of(embedder, reference.sequences()[one]), ids, err_msg=one)


@needs_shared
def test_pickled_weights_give_the_same_embeddings(tmp_path: Path) -> None:
    for file in TINY.folder.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, tmp_path)
    pickled = ConvNetEmbedder(tmp_path)
    assert pickled.weight_files[0].name == "pytorch_model.bin"
    np.testing.assert_array_equal(pickled("ACGTN" * 20), ConvNetEmbedder(TINY.folder)("ACGTN" * 20))


@needs_shared
def test_one_embedding_per_nucleotide_for_every_input() -> None:
    embedder = ConvNetEmbedder(TINY.folder)
    rows = embedder.embed(list(EDGES.values()), upsample_embeddings=True)
    assert [one.shape for one in rows] == [(len(sequence), 32) for sequence in EDGES.values()]
    assert all(np.isfinite(one).all() for one in rows)


@needs_shared
def test_embeddings_do_not_depend_on_the_batch() -> None:
    """Beyond the rounding of sums, which is 1e-5 of rows that reach 10."""
    sequences = list(TINY.sequences().values())
    together = ConvNetEmbedder(TINY.folder, batch_tokens=100_000).embed(sequences)
    alone = ConvNetEmbedder(TINY.folder, batch_tokens=1).embed(sequences)
    assert farthest(together, alone) < 5e-5
    assert max(float(np.abs(one).max()) for one in alone) > 5


@needs_shared
def test_checkpoint_without_head_says_so_for_logits() -> None:
    with pytest.raises(ModelError, match="lacks the language-model head"):
        ConvNetEmbedder(TINY.folder).logits(["ACGT"])


@needs_shared
def test_first_state_is_the_nucleotides() -> None:
    rows = ConvNetEmbedder(TINY.folder, layer=0)("ACGTN")
    np.testing.assert_array_equal(rows, np.eye(32)[[3, 4, 5, 6, 2]])


@needs_shared
def test_random_weights_follow_the_seed() -> None:
    first, again, other = (ConvNetEmbedder(TINY.folder, random_init=True, seed=seed)("ACGT") for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


@needs_shared
def test_missing_layer_raises(tmp_path: Path) -> None:
    shutil.copytree(TINY.folder, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy)
    config = (tmp_path / "config.json").read_text().replace('"n_layers": 8', '"n_layers": 9')
    (tmp_path / "config.json").chmod(0o644)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelError, match=r"missing model\.encoder\.8\.conv\.1\.weight"):
        ConvNetEmbedder(tmp_path)


@pytest.mark.parametrize("n_padded", [1, 40, 300])
def test_padding_reads_as_the_end_of_the_sequence(n_padded: int) -> None:
    """Masked at each layer: otherwise the first layer's biases would run back from the padding into the sequence."""
    torch.manual_seed(0)
    model = ConvNetForMaskedLM(ConvNetConfig(hidden_size=16, n_layers=8)).double().eval()
    torch.nn.init.normal_(model.model.encoder[0].conv["4"].bias)
    ids = torch.randint(3, 7, (2, 30))
    padded = torch.nn.functional.pad(ids, (0, n_padded), value=0)
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, n_padded))
    alone = model(ids, output_hidden_states=True)
    together = model(padded, mask, output_hidden_states=True)
    for state, state_alone in zip(together.hidden_states, alone.hidden_states, strict=True):
        torch.testing.assert_close(state[:, :30], state_alone, atol=1e-10, rtol=0)
        assert not state[:, 30:].any()
    torch.testing.assert_close(together.logits[:, :30], alone.logits, atol=1e-10, rtol=0)


def test_network_that_reads_an_alignment_raises() -> None:
    with pytest.raises(ModelError, match="needs 445 alignment columns"):
        ConvNetConfig(n_aux_features=445)
