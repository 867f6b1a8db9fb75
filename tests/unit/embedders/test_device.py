"""The dtype ``auto`` becomes that of the device before it enters a key, and TF32 is used only if it is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bend_hf.config import ModelFlags, RunConfig
from bend_hf.embedders import _device, from_config, load_embedder
from bend_hf.embedders._device import resolved_dtype, set_tf32
from bend_hf.embedders.from_config import embedder_options, open_model
from bend_hf.errors import ConfigError
from bend_hf.runs.run import run
from tests.fake_checkpoints import make_tiny


@pytest.fixture
def _with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take each device but the CPU for a GPU that computes in bfloat16."""
    for module in (_device, from_config):
        monkeypatch.setattr(module, "computes_in_bfloat16", lambda device: device != "cpu")


def test_auto_is_float32_on_a_cpu() -> None:
    assert resolved_dtype("auto", "cpu") == "float32"
    assert embedder_options(ModelFlags(device="cpu")) == {"protocol": "bend-2024", "device": "cpu"}
    assert open_model(ModelFlags(device="cpu")).dtype == "float32"


@pytest.mark.usefixtures("_with_bfloat16")
def test_auto_is_bfloat16_on_a_gpu_that_computes_in_it(tmp_path: Path) -> None:
    assert resolved_dtype("auto", "cuda") == resolved_dtype("auto", None) == "bfloat16"
    assert resolved_dtype("float32", "cuda") == "float32"
    model = make_tiny("dnabert2", tmp_path)
    embedder = open_model(ModelFlags(model="dnabert2", checkpoint=str(model), random_init=True, device="cuda:0"))
    assert embedder.dtype == embedder.identity["dtype"] == embedder.description["dtype"] == "bfloat16"


@pytest.mark.usefixtures("_with_bfloat16")
def test_a_network_that_bfloat16_changes_much_stays_float32_unless_asked() -> None:
    assert open_model(ModelFlags(model="bend-mini", device="cuda:0")).dtype == "float32"
    assert open_model(ModelFlags(model="bend-mini", device="cuda:0", model_dtype="bfloat16")).dtype == "bfloat16"


@pytest.mark.usefixtures("_with_bfloat16")
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_weights_that_are_trained_are_float32(tune: str) -> None:
    config = RunConfig(task="gene_finding", tune=tune)  # type: ignore[arg-type]  # mypy sees a text
    assert "dtype" not in embedder_options(config)
    assert embedder_options(replace(config, tune="head"))["dtype"] == "auto"


@pytest.mark.usefixtures("_with_bfloat16")
def test_what_has_no_weights_is_float32_everywhere(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("import numpy as np\ndef embed(sequences):\n    return [np.ones((len(s), 2)) for s in sequences]\n")
    for model in ("onehot", str(own)):
        assert open_model(ModelFlags(model=model)).dtype == "float32"


def test_what_changes_numbers_is_in_the_identity_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_embedder("bend-mini", device="cpu").identity
    for same in ({"dtype": "auto"}, {"batch_tokens": 64}, {"device": None}):
        assert load_embedder("bend-mini", **{"device": "cpu", **same}).identity == plain  # type: ignore[arg-type]
    monkeypatch.setattr(_device, "best_device", lambda: "cuda")
    for other in ({"dtype": "bfloat16"}, {"compile": True}, {"device": None, "tf32": True}):
        embedder = load_embedder("bend-mini", **{"device": "cpu", **other})  # type: ignore[arg-type]
        assert embedder.identity != plain
        assert (set(other) - {"device"}) <= embedder.description.keys()
    assert not {"tf32", "compile"} & load_embedder("bend-mini", device="cpu").description.keys()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"device": "cpu"},
            r"--tf32 is given, but the model computes on the device 'cpu'; only CUDA",
        ),
        ({"device": "cuda", "dtype": "bfloat16"}, r"--tf32 is given, but the model computes in bfloat16;"),
    ],
)
def test_tf32_without_effect_is_refused(options: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_embedder("bend-mini", tf32=True, **options)  # type: ignore[arg-type]  # mypy sees texts


def test_tf32_is_off_unless_it_is_allowed() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        set_tf32(False)
        assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (False, "highest")
        set_tf32(True)
        assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (True, "high")
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


def test_a_record_holds_the_dtype_and_not_auto(tmp_path: Path) -> None:
    config = RunConfig(
        task="cpg_methylation", data="sample", limit=4, epochs=1, device="cpu", out=tmp_path, cache=tmp_path / "cache"
    )
    (first,) = run(config)
    assert (first.record.config["model_dtype"], first.record.model["dtype"]) == ("float32", "float32")
    (again,) = run(replace(config, model_dtype="float32", batch_tokens=600))
    assert again.was_there
    (onehot,) = run(replace(config, model="onehot"))
    assert onehot.record.config["model_dtype"] == "float32"
