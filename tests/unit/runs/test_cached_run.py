"""What is cached is found by the content of a model's files: no network is built and no weights are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
import transformers
from safetensors.torch import load_file, save_file

import bend_hf.files
from bend_hf.cli._main import main
from bend_hf.config import ModelFlags
from bend_hf.embedders import load_embedder
from bend_hf.embedders._loaded_model import lazily
from bend_hf.embedders.from_config import open_model
from bend_hf.errors import ModelError
from tests.fake_checkpoints import make_tiny
from tests.tiny import write_data
from tests.unit.embedders.test_auto import bert, saved

TASK = "cpg_methylation"
FAMILIES = ("dnabert6", "caduceus-ph-1k", "hyenadna-tiny-1k")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), [TASK], n=16)


def checkpoint(model: str, folder: Path) -> list[str]:
    """Write a checkpoint with weights, and return the flags that open it."""
    if model == "auto":
        saved(transformers.BertForMaskedLM(bert()), folder)
        return ["--model", str(folder)]
    made = make_tiny(model, folder)
    drawn = load_embedder(model, checkpoint=made, random_init=True).model
    assert drawn is not None
    save_file({key: value.clone() for key, value in drawn.state_dict().items()}, made / "model.safetensors")
    return ["--model", model, "--checkpoint", str(folder)]


class Spy:
    """Counts networks that are built and weight files that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        for place, name in (
            (transformers.PreTrainedModel, "__init__"),
            (safetensors, "safe_open"),
            (safetensors.torch, "load_file"),
            (torch, "load"),
        ):
            monkeypatch.setattr(place, name, self.counted(name, getattr(place, name)))
        # A file's hash is remembered for later runs, once its time of change is past. Here it is remembered at once.
        monkeypatch.setattr(bend_hf.files, "_SETTLED_NS", -1)
        digest = bend_hf.files.hashlib.file_digest
        monkeypatch.setattr(bend_hf.files.hashlib, "file_digest", lambda file, kind: self.hashed(digest, file, kind))

    def counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.seen.append(name)
            return function(*args, **options)

        return call

    def hashed(self, digest: Callable[..., Any], file: Any, kind: str) -> Any:
        if Path(file.name).name.startswith("model."):
            self.seen.append("hash of the weights")
        return digest(file, kind)

    def take(self) -> list[str]:
        """Return what was seen since the last call."""
        seen, self.seen = self.seen, []
        return seen


def record(out: Path) -> dict[str, Any]:
    (path,) = out.glob("*.json")
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


@pytest.mark.parametrize("model", [*FAMILIES, "auto"])
def test_a_run_whose_embeddings_are_cached_does_not_load_the_model(
    model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = checkpoint(model, tmp_path / "model")
    spy = Spy(monkeypatch)
    common = ["--task", TASK, "--data", str(data), "--cache", str(tmp_path / "cache"), *flags]
    train = ["train", *common, "--epochs", "1", "--batch-size", "8"]
    assert main([*train, "--out", str(tmp_path / "first")]) == 0
    assert "__init__" in spy.take()
    assert main([*train, "--out", str(tmp_path / "second")]) == 0
    assert main(["embed", *common]) == 0
    assert main(["run", *common, "--epochs", "1", "--batch-size", "8", "--out", str(tmp_path / "second")]) == 0
    assert spy.take() == []
    first, second = record(tmp_path / "first"), record(tmp_path / "second")
    for part in ("model", "alignment", "metrics"):
        assert second[part] == first[part]
    assert first["model"]["n_parameters"] > 0
    assert first["config"]["run_key"] == second["config"]["run_key"]


@pytest.mark.parametrize("model", ["dnabert6", "auto"])
@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer_config.json"])
def test_any_changed_file_makes_a_new_entry(
    model: str, file: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = checkpoint(model, tmp_path / "model")
    command = ["embed", "--task", TASK, "--data", str(data), "--cache", str(tmp_path / "cache"), *flags]
    assert main([*command, "--splits", "test"]) == 0
    path = tmp_path / "model" / file
    if path.suffix == ".json":
        path.write_text(json.dumps({**json.loads(path.read_text() if path.exists() else "{}"), "a_field": 1}))
    else:
        state = load_file(path)
        name = next(name for name, value in state.items() if value.is_floating_point())
        save_file({**state, name: state[name] + 1}, path)
    spy = Spy(monkeypatch)
    assert main([*command, "--splits", "test"]) == 0
    assert "__init__" in spy.take()
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("model", [*FAMILIES, "auto"])
def test_identity_and_embeddings_are_the_same_when_a_model_loads_later(model: str, tmp_path: Path) -> None:
    flags = checkpoint(model, tmp_path / "model")
    config = ModelFlags(model=flags[1], checkpoint=flags[3] if len(flags) > 2 else None)
    late, now = open_model(config, lazy=True), open_model(config)
    assert (late.is_loaded, now.is_loaded) == (False, True)
    assert late.identity == now.identity
    assert not late.is_loaded
    assert late.description == now.description  # loads, as no cache told it
    assert late.is_loaded
    assert late.identity == now.identity
    assert (late("ACGTACGTAC") == now("ACGTACGTAC")).all()


def test_a_model_whose_weights_change_between_its_key_and_its_loading_is_refused(tmp_path: Path) -> None:
    checkpoint("dnabert6", tmp_path)
    with lazily():
        embedder = load_embedder("dnabert6", checkpoint=tmp_path)
    assert embedder.identity
    state = load_file(tmp_path / "model.safetensors")
    save_file({name: value + 1 for name, value in state.items()}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="changed while they were opened; start again"):
        embedder("ACGTACGTAC")


def test_a_damaged_checkpoint_fails_when_it_is_needed_and_again(tmp_path: Path) -> None:
    checkpoint("dnabert6", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with lazily():
        embedder = load_embedder("dnabert6", checkpoint=tmp_path)
    for _ in range(2):
        with pytest.raises(ModelError, match="cannot be read"):
            embedder("ACGTACGTAC")


def test_a_model_of_the_users_code_loads_at_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import numpy as np\ndef embed(sequences): return [np.ones((len(one), 2)) for one in sequences]\n")
    assert open_model(ModelFlags(model=str(file)), lazy=True).is_loaded
