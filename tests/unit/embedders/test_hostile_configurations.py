"""Configurations that no model has: refused in one line, before memory is taken for what they declare."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from transformers import AutoConfig

from bend_hf.embedders import MODELS, load_embedder
from bend_hf.embedders._checkpoint_files import check_sizes
from bend_hf.errors import ModelError

FAMILIES = ["dnabert3", "bend-mini", "caduceus-ph", "dnabert2", "awdlstm"]


def checkpoint(key: str, folder: Path) -> tuple[Path, dict[str, object]]:
    tiny = MODELS.get(key).tiny
    assert tiny is not None
    tiny().write(folder)
    path = folder / "config.json"
    return path, json.loads(path.read_text())


@pytest.mark.parametrize("key", FAMILIES)
def test_deep_nesting_and_sizes_that_no_model_has_are_refused(key: str, tmp_path: Path) -> None:
    path, whole = checkpoint(key, tmp_path)
    bad = ["[" * 100_000 + "]" * 100_000, '{"a":' * 5_000 + "1" + "}" * 5_000, '{"a": ' + "9" * 5_000 + "}"]
    sizes = [name for name, value in whole.items() if isinstance(value, int) and not isinstance(value, bool)]
    sized = [
        name for name in sizes if name.endswith(("size", "width", "layers", "n_layer", "d_model", "kmer", "heads"))
    ]
    bad += [json.dumps({**whole, name: value}) for name in sized for value in (-1, 10**9)]
    assert len(bad) >= 7
    tracemalloc.start()
    for text in bad:
        path.write_text(text)
        with pytest.raises(ModelError, match=r"config\.json|does not hold a model that can be built"):
            load_embedder(key, checkpoint=str(tmp_path), random_init=True, device="cpu")
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()


@pytest.mark.parametrize("key", FAMILIES)
def test_values_of_another_kind_are_an_error_of_the_checkpoint(key: str, tmp_path: Path) -> None:
    path, whole = checkpoint(key, tmp_path)
    path.write_text(json.dumps({name: "text" if isinstance(value, int) else value for name, value in whole.items()}))
    with pytest.raises(ModelError):
        load_embedder(key, checkpoint=str(tmp_path), random_init=True, device="cpu")


def test_sizes_are_compared_with_the_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"hidden_size": 1_000_000}}))
    check_sizes(tmp_path, with_weights=False)
    (tmp_path / "model.safetensors").write_bytes(bytes(999))
    with pytest.raises(ModelError, match=r"hidden_size is 1,000,000, but all its files hold 1,0\d\d bytes"):
        check_sizes(tmp_path, with_weights=True)
    (tmp_path / "model.safetensors").write_bytes(bytes(1_000_000))
    check_sizes(tmp_path, with_weights=True)


def test_no_size_that_transformers_writes_by_default_is_refused(tmp_path: Path) -> None:
    checked = set()
    for name in ("bert", "deberta", "deberta-v2", "esm", "longformer", "mamba2", "modernbert", "t5", "xlnet"):
        config = AutoConfig.for_model(name)
        (tmp_path / "config.json").write_text(config.to_json_string(use_diff=False))
        check_sizes(tmp_path, with_weights=False)
        checked |= {key for key, value in config.to_dict().items() if value == -1}
    assert "max_relative_positions" in checked
    (tmp_path / "config.json").write_text('{"max_relative_positions": -2}')
    with pytest.raises(ModelError, match="max_relative_positions is -2; expected a number from 0"):
        check_sizes(tmp_path, with_weights=False)


@pytest.mark.parametrize("key", sorted(MODELS.names()))
def test_no_size_of_a_tiny_model_is_refused(key: str, tmp_path: Path) -> None:
    if MODELS.get(key).tiny is not None:
        checkpoint_of = MODELS.get(key).tiny
        assert checkpoint_of is not None
        checkpoint_of().write(tmp_path)
        check_sizes(tmp_path, with_weights=True)
