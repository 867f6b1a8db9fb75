"""PlantCAD2 gives the hidden states and scores of the original code for the same weights."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from bend_hf.embedders import MODELS, CaduceusEmbedder, load_embedder
from bend_hf.embedders._tokens import reverse_complement
from bend_hf.embedders.networks.caduceus import CaduceusConfig, CaduceusForMaskedLM, config_from_json
from bend_hf.errors import ModelError
from bend_hf.types import ProtocolName
from bend_hf.variants.allele_likelihoods import AlleleLikelihoods
from tests.fake_checkpoints import make_tiny
from tests.parity.golden_new import folder_of, golden
from tests.shared_data import needs_shared

BOTH, ONE = "plantcad2-tiny", "plantcad2-tiny-norc"  # strands
NAMES = (BOTH, ONE)
ATOL = 1e-5


@cache
def embedder(name: str, protocol: ProtocolName = "bend-2024") -> CaduceusEmbedder:
    return CaduceusEmbedder(folder_of(name), protocol=protocol, device="cpu", batch_tokens=10**4)


def rows_of(name: str, ids: NDArray[np.integer], **changes: Any) -> Any:
    """Hidden states of token ids with fields of config.json changed."""
    fields = json.loads((folder_of(name) / "config.json").read_text()) | changes
    model = CaduceusForMaskedLM(config_from_json(fields)).eval()
    model.load_state_dict(load_file(folder_of(name) / "model.safetensors"), strict=False)
    with torch.no_grad():
        return model.caduceus(torch.from_numpy(ids)[None].long()).last_hidden_state[0].numpy()


def copied(name: str, folder: Path, *, weights: str = "model.safetensors", **changes: Any) -> Path:
    """Copy a checkpoint with one of its weight files, and with fields of config.json changed."""
    for file in (weights, "tokenizer.json"):
        shutil.copy(folder_of(name) / file, folder)
    fields = json.loads((folder_of(name) / "config.json").read_text()) | changes
    fields = {field: value for field, value in fields.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


@needs_shared
@pytest.mark.parametrize("protocol", get_args(ProtocolName))
@pytest.mark.parametrize("name", NAMES)
def test_ids_rows_and_scores_equal_the_reference(name: str, protocol: ProtocolName) -> None:
    """The sequences share batches, so they are padded."""
    cases = golden().sequence_names(name)
    sequences = [golden().sequences[case] for case in cases]
    loaded = embedder(name, protocol)
    together = zip(cases, sequences, loaded.embed(sequences), loaded.logits(sequences), strict=True)
    for case, sequence, rows, scores in together:
        np.testing.assert_array_equal(loaded.tokenize([sequence]).ids, golden().input_ids(name, case), case)
        np.testing.assert_allclose(rows, golden().embedding(name, case), atol=ATOL, rtol=0, err_msg=case)
        expected = golden().logits(name, case)
        if expected is not None:
            np.testing.assert_allclose(scores, expected, atol=5e-5, rtol=0, err_msg=case)


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_hidden_layers_equal_the_reference(name: str) -> None:
    for layer in range(3):
        rows = CaduceusEmbedder(folder_of(name), layer=layer, device="cpu")(golden().sequences["len12"])
        np.testing.assert_allclose(rows, golden().extra(name, f"len12/layer{layer}"), atol=ATOL, rtol=0)


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_the_swap_of_strands_of_fused_norms_is_the_default(name: str) -> None:
    ids = golden().input_ids(name, "len100")
    unfused = rows_of(name, ids, norm_cfg={"fused_add_norm": False})
    np.testing.assert_allclose(unfused, golden().extra(name, "len100/raw_fused_add_norm_false"), atol=ATOL, rtol=0)
    fused = golden().embedding(name, "len100")
    assert (np.abs(unfused - fused).max() > 1) == (name == BOTH)
    for written in (None, {}, {"fused_add_norm": True}):
        np.testing.assert_allclose(rows_of(name, ids, norm_cfg=written), fused, atol=ATOL, rtol=0)


@needs_shared
def test_a_model_of_both_strands_is_equivariant() -> None:
    back = rows_of(BOTH, golden().extra(BOTH, "len100/rc_ids"))
    np.testing.assert_allclose(back, golden().extra(BOTH, "len100/rc_raw"), atol=ATOL, rtol=0)
    sequence = golden().sequences["n_runs_256"]
    rows, back = embedder(BOTH).embed([sequence, reverse_complement(sequence)])
    np.testing.assert_allclose(back[::-1, ::-1], rows, atol=ATOL, rtol=0)


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_the_likelihood_of_a_base_is_read_at_the_mask(name: str) -> None:
    scores = golden().extra(name, "len64/masked20_logits")
    scores = scores if scores.ndim == 1 else scores[20]
    likely = AlleleLikelihoods.of(embedder(name)).of_bases([golden().sequences["len64"]], np.array([20]))
    expected = scores[[3, 4, 5, 6]]
    np.testing.assert_allclose(likely[0] - likely[0, 0], expected - expected[0], atol=1e-4, rtol=0)


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_padding_on_either_side_changes_nothing(name: str) -> None:
    network = embedder(name)._network().base_model
    alone, other = torch.tensor([3, 4, 5, 6, 2]), torch.tensor([3, 3, 5, 6, 2, 4, 4, 1])
    with torch.no_grad():
        expected = network(alone[None]).last_hidden_state[0]
        for place in (slice(0, 5), slice(3, 8)):
            ids, mask = torch.zeros(2, 8, dtype=torch.long), torch.zeros(2, 8)
            ids[0, place], mask[0, place], ids[1], mask[1] = alone, 1, other, 1
            torch.testing.assert_close(network(ids, mask).last_hidden_state[0, place], expected, atol=ATOL, rtol=0)


def flat_fields(name: str) -> dict[str, Any]:
    """The fields of a configuration in the layout of the first Caduceus, all at the top."""
    fields = json.loads((folder_of(name) / "config.json").read_text())
    return {
        "layer_cfg": ...,
        "norm_cfg": ...,
        "ssm_cfg": fields["layer_cfg"]["mamba_cfg"]["ssm_cfg"],
        "rms_norm": True,
        "fused_add_norm": True,
        "norm_epsilon": 1e-5,
    }


@needs_shared
@pytest.mark.parametrize(
    "layout", ["all keys", "old pickle", "other of tied keys", "no prefix", "no buffers", "flat", "said to be v1"]
)
@pytest.mark.parametrize("name", NAMES)
def test_other_layouts_of_a_checkpoint_give_the_same_rows(name: str, layout: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {}
    if layout == "flat":
        changes = flat_fields(name)
    if layout == "said to be v1":
        own = json.loads((folder_of(name) / "config.json").read_text())["layer_cfg"]["mamba_cfg"]
        changes = {"layer_cfg": {"mamba_cfg": {**own, "version": "v1"}}}
    weights = "pytorch_model.bin" if layout == "all keys" else "model.safetensors"
    folder = copied(name, tmp_path, weights=weights, **changes)
    if weights == "model.safetensors":
        state = load_file(folder / weights)
        if layout == "other of tied keys":
            state = {
                key.replace("mamba_fwd", "mamba_rev") if "_proj" in key and name == BOTH else key: value
                for key, value in state.items()
            }
        if layout == "no prefix":
            state = {key.removeprefix("caduceus."): value for key, value in state.items()}
        if layout == "no buffers":
            state = {key: value for key, value in state.items() if "complement_map" not in key}
        save_file(state, folder / weights)
        if layout == "old pickle":  # of torch before 1.6
            (folder / weights).unlink()
            torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    loaded = load_embedder(folder, device="cpu")
    assert loaded.lacking == () or all("complement_map" in key for key in loaded.lacking)
    np.testing.assert_allclose(
        loaded(golden().sequences["len100"]), golden().embedding(name, "len100"), atol=ATOL, rtol=0
    )


@needs_shared
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ssm_cfg": {"norm_before_gate": True}}, r"ssm_cfg.norm_before_gate=True is not supported; expected False"),
        ({"ssm_cfg": {"ngroups": 2}}, r"ssm_cfg.ngroups=2 is not supported; expected 1"),
        ({"mlp_cfg": {"intermediate_size": 8}}, r"mlp_cfg=\{'intermediate_size': 8\} is not supported"),
        ({"ssm_cfg": {"d_state": 32}}, r"does not have the shapes of its configuration"),
    ],
)
def test_another_block_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = copied(BOTH, tmp_path, layer_cfg={"mamba_cfg": {"ssm_cfg": {"d_state": 64}, **changes}})
    with pytest.raises(ModelError, match=message):
        load_embedder(folder)


@needs_shared
def test_a_missing_map_of_complements_and_a_missing_tokenizer_are_named(tmp_path: Path) -> None:
    folder = copied(BOTH, tmp_path, complement_map=None)
    with pytest.raises(ModelError, match="rcps but no complement_map"):
        load_embedder(folder)
    folder = copied(BOTH, tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer.json, and the network has 8 tokens"):
        load_embedder(folder)


@pytest.mark.parametrize(("size", "width", "depth"), [("small", 768, 24), ("medium", 1024, 48), ("large", 1536, 48)])
def test_the_declared_count_is_that_of_the_published_sizes(size: str, width: int, depth: int) -> None:
    config = CaduceusConfig(
        d_model=width, n_layer=depth, vocab_size=7, mamba_version=2, rcps=True, ssm_cfg={"d_state": 64}
    )
    with torch.device("meta"):
        model = CaduceusForMaskedLM(config)
    spec = MODELS.get(f"plantcad2-{size}")
    assert sum(weight.numel() for weight in model.parameters()) == spec.n_parameters
    assert config.hidden_size == spec.width


def test_the_protocols_cut_as_those_of_caduceus(tmp_path: Path) -> None:
    folder = make_tiny("plantcad2-small", tmp_path)
    for protocol, n_chunks in (("bend-2024", 1), ("bend-hf-1", 3)):
        loaded = load_embedder(folder, random_init=True, protocol=protocol)
        assert len(loaded.tokenize(["ACGTN" * 12]).chunk_starts) - 1 == n_chunks
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    named = load_embedder("plantcad2-small", checkpoint=folder, random_init=True, protocol="bend-hf-1")
    assert len(named.tokenize(["ACGT" * 2049]).chunk_starts) - 1 == 2  # 8,192 tokens are declared


def test_half_precision_rows_are_near_those_of_float32(tmp_path: Path) -> None:
    folder = make_tiny("plantcad2-small", tmp_path)
    half, full = (
        load_embedder(folder, random_init=True, dtype=dtype, device="cpu")("ACGTTGCA" * 20)
        for dtype in ("bfloat16", "float32")
    )
    cosine = (half * full).sum(1) / (np.linalg.norm(half, axis=1) * np.linalg.norm(full, axis=1))
    assert cosine.min() > 0.99
