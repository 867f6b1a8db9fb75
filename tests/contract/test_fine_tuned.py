"""Every family reads a fine-tuned copy: the base model counts, and the head of another task is named and left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from bend_hf.embedders import MODELS, load_embedder
from bend_hf.errors import ModelError
from tests.fake_checkpoints import make_tiny

# One key of each family; all keys of a family load alike.
KEYS = sorted({spec.family: spec.key for spec in MODELS if spec.tiny is not None}.values())


@pytest.mark.parametrize("key", KEYS)
def test_the_head_of_another_task_is_left_out(key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_tiny(key, tmp_path)
    drawn = load_embedder(key, checkpoint=folder, random_init=True)
    assert drawn.model is not None
    state = {name: value.clone() for name, value in drawn.model.state_dict().items()}
    heads = {"classifier.weight": torch.zeros(2, 3), "score.dense.bias": torch.zeros(2)}
    save_file(state | heads, folder / "model.safetensors")
    with caplog.at_level("INFO"):
        loaded = load_embedder(key, checkpoint=folder)
    np.testing.assert_array_equal(loaded("ACGTTGCANN"), drawn("ACGTTGCANN"))
    assert "classifier.weight, score.dense.bias" in caplog.text


@pytest.mark.parametrize("key", KEYS)
def test_an_unknown_part_of_the_base_model_raises_by_its_name_in_the_file(key: str, tmp_path: Path) -> None:
    folder = make_tiny(key, tmp_path)
    drawn = load_embedder(key, checkpoint=folder, random_init=True)
    assert drawn.model is not None
    state = {name: value.clone() for name, value in drawn.model.state_dict().items()}
    if not isinstance(drawn.model, PreTrainedModel):
        pytest.skip("published without a base model; what its network does not read is named in a warning")
    extra = f"{drawn.model.base_model_prefix}.extra.weight"
    save_file({**state, extra: torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=rf"unexpected {extra};"):
        load_embedder(key, checkpoint=folder)


@pytest.mark.parametrize("key", KEYS)
def test_outputs_that_the_configuration_asks_for_change_nothing(key: str, tmp_path: Path) -> None:
    folder = make_tiny(key, tmp_path)
    expected = load_embedder(key, checkpoint=folder, random_init=True)("ACGTTGCANN")
    path = folder / "config.json"
    fields = {"return_dict": False, "output_hidden_states": True, "use_cache": True, "torchscript": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    np.testing.assert_array_equal(load_embedder(key, checkpoint=folder, random_init=True)("ACGTTGCANN"), expected)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("key", [key for key in KEYS if not key.startswith("evo2")])  # it is read in parts
def test_the_names_of_a_wrapped_network_are_read(key: str, wrapper: str, tmp_path: Path) -> None:
    folder = make_tiny(key, tmp_path)
    drawn = load_embedder(key, checkpoint=folder, random_init=True)
    assert drawn.model is not None
    state = {f"{wrapper}{name}": value.clone() for name, value in drawn.model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    np.testing.assert_array_equal(load_embedder(key, checkpoint=folder)("ACGTTGCANN"), drawn("ACGTTGCANN"))
