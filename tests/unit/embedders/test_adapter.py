"""An adapter next to a family's checkpoint is merged into its weights, or refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from bend_hf.embedders import AutoEmbedder
from bend_hf.embedders._adapter import adapter_files, merge_adapter
from bend_hf.errors import ModelError
from bend_hf.types import Floats
from tests.unit.embedders.test_auto import bert, saved

peft = pytest.importorskip("peft")


def network() -> BertForMaskedLM:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    return BertForMaskedLM(config).eval()


def tuned(folder: Path, base: torch.nn.Module, **options: object) -> torch.nn.Module:
    """Save an adapter with random weights next to a checkpoint, and return the network that it makes."""
    config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["query", "value"], **options)
    wrapped = peft.get_peft_model(base, config)
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1.0)
    wrapped.save_pretrained(folder)
    wrapped.eval()
    return wrapped


def hidden(model: torch.nn.Module) -> Floats:
    with torch.no_grad():
        states = model(torch.arange(9)[None], output_hidden_states=True)
    return np.asarray((states.hidden_states or ())[-1].numpy(), np.float32)


@pytest.mark.parametrize("of_encoder", [False, True])
def test_adapter_is_merged(tmp_path: Path, of_encoder: bool) -> None:
    whole = network()
    expected = hidden(tuned(tmp_path, whole.bert if of_encoder else whole))
    plain = network()
    base = hidden(plain)
    assert [path.name for path in adapter_files(tmp_path)] == ["adapter_model.safetensors"]
    names = [name for name, _ in plain.named_parameters()]
    merged = merge_adapter(plain, tmp_path)
    np.testing.assert_allclose(hidden(merged), expected, atol=1e-5)
    assert np.abs(expected - base).max() > 0.02
    assert [name for name, _ in merged.named_parameters()] == names  # the network keeps its form


def test_adapter_of_other_layers_is_refused(tmp_path: Path) -> None:
    tuned(tmp_path, torch.nn.ModuleDict({"query": torch.nn.Linear(2, 2), "value": torch.nn.Linear(2, 2)}))
    with pytest.raises(ModelError, match=r"adapter_config.json\) cannot be applied: BertForMaskedLM does not have"):
        merge_adapter(network(), tmp_path)


def test_parts_of_an_adapter_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ModelError, match=r"holds adapter_config.json but no adapter_model\.safetensors"):
        adapter_files(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="cannot be read"):
        merge_adapter(network(), tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="peft is not installed"):
        adapter_files(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"holds adapter_model.safetensors but no adapter_config\.json"):
        adapter_files(tmp_path)


def auto_folder(folder: Path) -> BertForMaskedLM:
    """Write a checkpoint that transformers loads."""
    network = BertForMaskedLM(bert())
    saved(network, folder)
    return network


def test_adapter_of_a_transformers_model_is_merged(tmp_path: Path) -> None:
    wrapped = tuned(tmp_path, auto_folder(tmp_path))
    embedder = AutoEmbedder(tmp_path)
    (tokens,) = embedder.embed_tokens(["ACGTNGTA"])
    with torch.inference_mode():
        states = wrapped(torch.tensor([[2, 10, 1, 9, 4, 3]]), output_hidden_states=True).hidden_states
    np.testing.assert_allclose(tokens.values, states[-1][0, 1:-1].numpy(), atol=1e-5)
    assert {path.name for path in embedder.weight_files} == {"model.safetensors", "adapter_model.safetensors"}
    assert type(embedder.model) is BertForMaskedLM


def test_adapter_whose_keys_fit_no_layer_of_a_transformers_model_is_refused(tmp_path: Path) -> None:
    tuned(tmp_path, auto_folder(tmp_path))
    path = tmp_path / "adapter_model.safetensors"
    renamed = {name.replace("query", "queries"): value for name, value in load_file(path).items()}
    save_file(renamed, path)
    with pytest.raises(ModelError, match=r"cannot be applied: BertForMaskedLM does not have the layers of"):
        AutoEmbedder(tmp_path)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_integers_for_weights_of_a_transformers_model_are_refused(
    tmp_path: Path, suffix: str, dtype: torch.dtype
) -> None:
    auto_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    name = "bert.encoder.layer.0.attention.self.query.weight"
    state = load_file(path)
    state[name] = (state[name] * 20).abs().to(dtype)
    state["bert.embeddings.position_ids"] = torch.arange(16)[None]  # a buffer of integers, as older versions saved it
    if suffix == "bin":
        path.unlink()
        torch.save(state, tmp_path / "pytorch_model.bin")
    else:
        save_file(state, path)
    with pytest.raises(ModelError, match=f"holds integers where weights are expected: {name}"):
        AutoEmbedder(tmp_path)


def rows_of(folder: Path) -> Floats:
    (tokens,) = AutoEmbedder(folder).embed_tokens(["ACGTNGTA"])
    return tokens.values


def encoder_rows(encoder: torch.nn.Module) -> Floats:
    with torch.inference_mode():
        states = encoder(torch.tensor([[2, 10, 1, 9, 4, 3]]), output_hidden_states=True).hidden_states
    return np.asarray(states[-1][0, 1:-1].numpy())


@pytest.mark.parametrize("base", ["BertForSequenceClassification", "BertModel"])
@pytest.mark.parametrize("alpha", [{}, {"bert.encoder.layer.0.attention.self.query": 64}])
def test_adapter_of_a_classifier_is_merged_whatever_head_its_base_has(
    base: str, alpha: dict[str, int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(bert()).eval()
    saved(model if base == "BertForSequenceClassification" else model.bert, tmp_path)
    before = rows_of(tmp_path)
    wrapped = tuned(tmp_path, model, task_type="SEQ_CLS", alpha_pattern=alpha)
    assert any("classifier" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    found = rows_of(tmp_path)
    np.testing.assert_allclose(found, encoder_rows(wrapped.base_model.model.bert), atol=1e-5)
    assert np.abs(found - before).max() > 0.02


def test_adapter_that_trains_biases_is_refused(tmp_path: Path) -> None:
    wrapped = tuned(tmp_path, auto_folder(tmp_path), bias="lora_only")
    for name, weight in wrapped.named_parameters():
        if name.endswith("base_layer.bias"):
            torch.nn.init.normal_(weight)
    wrapped.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"it also (replaces .*query.base_layer.bias|trains biases)"):
        AutoEmbedder(tmp_path)


def test_adapter_that_replaces_the_language_model_head_is_refused(tmp_path: Path) -> None:
    tuned(tmp_path, auto_folder(tmp_path), modules_to_save=["cls"])
    with pytest.raises(ModelError, match=r"it also replaces base_model\.model\.cls"):
        AutoEmbedder(tmp_path)


def test_adapter_that_trains_single_tokens_is_refused(tmp_path: Path) -> None:
    tuned(tmp_path, auto_folder(tmp_path), trainable_token_indices={"word_embeddings": [5, 6]})
    with pytest.raises(ModelError, match=r"it also replaces base_model.*trainable_tokens_delta"):
        AutoEmbedder(tmp_path)
