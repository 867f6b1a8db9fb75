"""An adapter next to a family's checkpoint is merged into its weights, or refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from bend_hf.embedders._adapter import adapter_files, merge_adapter
from bend_hf.errors import ModelError
from bend_hf.types import Floats

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
