"""Omni-DNA gives the outputs of the OLMo and the Llama of transformers, for weights in the layout of ai2-olmo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bend_hf.embedders import MODELS, load_embedder
from bend_hf.embedders.omnidna import stock_fields
from bend_hf.errors import ModelError
from bend_hf.variants.allele_likelihoods import AlleleLikelihoods
from tests.fake_checkpoints import make_tiny
from tests.parity.stock_networks import SEQUENCES, losses_of, outputs_of

MAKERS = {"omni-dna-1b": transformers.OlmoForCausalLM, "omni-dna-300m": transformers.LlamaForCausalLM}
KEYS = tuple(MAKERS)


def checkpoints(key: str, folder: Path) -> tuple[Path, Path]:
    """Write one random network twice: as transformers saves it, and with the names and joined matrices of ai2-olmo."""
    published, stock = make_tiny(key, folder / "published"), folder / "stock"
    fields = json.loads((published / "config.json").read_text())
    config = MAKERS[key].config_class(
        vocab_size=fields["vocab_size"],
        hidden_size=16,
        intermediate_size=64,  # half of 8 * 16: ai2-olmo counts both matrices
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
        pad_token_id=0,
        tie_word_embeddings=True,
        **({"rms_norm_eps": 1e-5} if key == "omni-dna-300m" else {}),
    )
    torch.manual_seed(1)
    network = MAKERS[key](config)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.ndim == 1) * 0.5, std=0.3)
    network.save_pretrained(stock)
    save_file(joined(network.state_dict(), normed=key == "omni-dna-300m"), published / "model.safetensors")
    return published, stock


def joined(state: dict[str, torch.Tensor], *, normed: bool) -> dict[str, torch.Tensor]:
    """Give weights the layout of ai2-olmo: query, key and value below each other, and up above gate."""
    out = {"model.transformer.wte.weight": state["model.embed_tokens.weight"]}
    for number in range(2):
        old, new = f"model.layers.{number}", f"model.transformer.blocks.{number}"
        out[f"{new}.att_proj.weight"] = torch.cat([state[f"{old}.self_attn.{one}_proj.weight"] for one in "qkv"])
        out[f"{new}.ff_proj.weight"] = torch.cat([state[f"{old}.mlp.{one}_proj.weight"] for one in ("up", "gate")])
        out[f"{new}.attn_out.weight"] = state[f"{old}.self_attn.o_proj.weight"]
        out[f"{new}.ff_out.weight"] = state[f"{old}.mlp.down_proj.weight"]
        if normed:
            out[f"{new}.attn_norm.weight"] = state[f"{old}.input_layernorm.weight"]
            out[f"{new}.ff_norm.weight"] = state[f"{old}.post_attention_layernorm.weight"]
    if normed:
        out["model.transformer.ln_f.weight"] = state["model.norm.weight"]
    return {key: value.clone() for key, value in out.items()}


@pytest.mark.parametrize("key", KEYS)
def test_every_layer_the_scores_and_the_losses_equal_those_of_transformers(key: str, tmp_path: Path) -> None:
    published, stock = checkpoints(key, tmp_path)
    layers = [load_embedder(published, layer=layer, device="cpu") for layer in range(3)]
    for sequence in SEQUENCES:
        tokens = layers[-1].tokenize([sequence])
        expected = outputs_of(stock, tokens.ids)
        content = tokens.embedding_token
        for embedder, states in zip(layers, expected.layers, strict=True):
            np.testing.assert_allclose(embedder(sequence), states[content], atol=1e-5, rtol=1e-5, err_msg=sequence)
        (scores,), (loss,) = layers[-1].logits([sequence]), layers[-1].loss([sequence])
        np.testing.assert_allclose(scores, expected.scores[content], atol=5e-5, rtol=1e-5)
        np.testing.assert_allclose(loss, losses_of(layers[-1], expected.scores, tokens.ids, content), atol=1e-4)


def test_the_likelihood_of_a_variant_is_read_one_token_before_it(tmp_path: Path) -> None:
    published, stock = checkpoints("omni-dna-1b", tmp_path)
    embedder = load_embedder(published, device="cpu")
    likely = AlleleLikelihoods.of(embedder).of_alleles(["CCCCG", "CCCCT"], np.array([4, 4]), n_alleles=2)
    ids = embedder.tokenize(["CCCCG", "CCCCT"]).ids.reshape(2, -1)[:, :-1]  # the ends differ in one token
    found = [outputs_of(stock, one).scores[4, one[5]] for one in ids]
    assert likely[0, 0] - likely[0, 1] == pytest.approx(float(found[0] - found[1]), abs=1e-4)


@pytest.mark.parametrize("layout", ["alias", "no prefix", "classifier"])
def test_other_layouts_of_a_checkpoint_give_the_same_rows(layout: str, tmp_path: Path) -> None:
    published, _ = checkpoints("omni-dna-1b", tmp_path)
    expected = load_embedder(published, device="cpu")("GATTACA")
    state = load_file(published / "model.safetensors")
    if layout == "alias":
        state["word_embeddings.weight"] = state["model.transformer.wte.weight"].clone()
    elif layout == "no prefix":
        state = {key.removeprefix("model."): value for key, value in state.items()}
    else:
        state["score.weight"] = torch.zeros(2, 16)
    save_file(state, published / "model.safetensors")
    np.testing.assert_array_equal(load_embedder(published, device="cpu")("GATTACA"), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"include_bias": True}, "config.json has include_bias=True, also where it leaves a field out"),
        ({"rope": None}, "config.json has rope=None"),
        ({"layer_norm_with_affine": True}, "layer_norm_type='default', layer_norm_with_affine=True"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps=1e-06"),
        ({"d_model": None}, "lacks d_model; expected the configuration of an Omni-DNA"),
    ],
)
def test_another_network_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = make_tiny("omni-dna-1b", tmp_path)
    fields = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match=message):
        load_embedder(folder, random_init=True)


def test_the_declared_count_is_that_of_the_published_sizes() -> None:
    tiny = MODELS.get("omni-dna-1b").tiny
    assert tiny is not None
    sizes = {"d_model": 2048, "n_heads": 16, "n_layers": 16, "vocab_size": 4096, "embedding_size": 4096}
    fields = stock_fields({**tiny().config, **sizes, "max_sequence_length": 250})
    with torch.device("meta"):
        model = transformers.OlmoForCausalLM(transformers.OlmoConfig.from_dict({**fields, "pad_token_id": 0}))
    n_parameters = sum(weight.numel() for weight in model.parameters())
    assert n_parameters == MODELS.get("omni-dna-1b").n_parameters
    header = 4_328_529_472 - 4 * n_parameters  # bytes of the published file, without its numbers
    assert 0 < header < 20_000


def test_the_base_of_rotary_positions_is_read(tmp_path: Path) -> None:
    folder = make_tiny("omni-dna-1b", tmp_path)
    before = load_embedder(folder, random_init=True, device="cpu")("GATTACAGATTACA")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "rope_theta": 100}))
    after = load_embedder(folder, random_init=True, device="cpu")("GATTACAGATTACA")
    assert np.abs(after[-1] - before[-1]).max() > 1e-3
