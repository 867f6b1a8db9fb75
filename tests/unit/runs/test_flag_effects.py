"""A flag without an effect is refused, or said and left at its default where other models or tasks have it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from bend_hf.cli._main import main
from bend_hf.config import DataConfig, RunConfig, flags_of, given_without_effect
from bend_hf.data.sources import sources_of
from bend_hf.embedders import MODELS
from bend_hf.errors import ConfigError
from bend_hf.runs.flag_effects import (
    check_model_flags,
    check_task_flags,
    lacking_of_model,
    lacking_of_task,
    with_effect,
)
from bend_hf.tasks import TASKS

OTHER: dict[str, Any] = {  # a value of each flag with a need that is not its default
    "checkpoint": "owner/name",
    "revision": "abc",
    "layer": 3,
    "model_dtype": "float16",
    "tf32": True,
    "compile": True,
    "random_init": True,
    "overlap_tokens": 2,
    "batch_tokens": 64,
    "offload": "disk",
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 0.1,
    "weight_decay": 0.1,
    "mixed_precision": "bf16",
    "schedule": "cosine",
    "warmup_steps": 5,
    "gradient_accumulation": 2,
    "patience": 3,
    "checkpoint_every": 7,
    "tracker": ("tensorboard",),
    "keep": "last",
    "decode": "grammar",
    "shots": (1, "all"),
    "cache": Path("c"),
    "cache_dtype": "float32",
    "no_cache": True,
    "out_of_bounds": "pad",
    "ref_mismatch": "drop",
    "no_averages": True,
}
NEEDS = {name: info.needs for name, info in flags_of(RunConfig).items() if info.needs is not None}
OF_WEIGHTS = [name for name, need in NEEDS.items() if need in ("weights", "checkpoint", "revision")]
TRAINED, ZERO_SHOT = TASKS.get("cpg_methylation"), TASKS.get("variant_effects_disease")


def config(**values: Any) -> RunConfig:
    return RunConfig(task=("cpg_methylation",), **values)


def test_every_flag_with_a_need_is_tried_here() -> None:
    assert set(OTHER) == set(NEEDS)
    defaults = {item.name: item.default for item in fields(RunConfig)}
    assert all(value != defaults[name] for name, value in OTHER.items())


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_a_flag_of_weights_is_refused_for_a_model_without_weights(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} is .*, but onehot .*; leave the flag out"):
        check_model_flags(config(model="onehot", **{name: OTHER[name]}))


@pytest.mark.parametrize("name", [name for name, need in NEEDS.items() if need == "training"])
def test_a_flag_of_the_training_is_refused_for_a_task_without_one(name: str) -> None:
    given = config(**{name: OTHER[name]})
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} is .*, but variant_effects_disease is scored"):
        check_task_flags(given, [ZERO_SHOT])
    check_task_flags(given, [TRAINED])


def test_a_flag_of_variant_scores_is_refused_for_a_task_without_variants() -> None:
    given = config(no_averages=True)
    with pytest.raises(ConfigError, match="--no-averages is given, but cpg_methylation scores no variants"):
        check_task_flags(given, [TRAINED])
    check_task_flags(given, [ZERO_SHOT])
    assert with_effect(given, lacking_of_task(TRAINED)) == config()


def test_a_flag_that_applies_to_one_of_several_is_said_and_reset_for_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = config(layer=3, epochs=2)
    check_model_flags(given, [config(model="onehot"), config(model="dnabert6")])
    assert "--layer is 3, but onehot has no weights; it has no effect there" in caplog.text
    check_task_flags(given, [TRAINED, ZERO_SHOT])
    assert "--epochs is 2, but variant_effects_disease is scored without training" in caplog.text
    assert with_effect(given, lacking_of_model("onehot")) == config(epochs=2)
    assert with_effect(given, lacking_of_model("dnabert6"), lacking_of_task(ZERO_SHOT)) == config(layer=3)


@pytest.mark.parametrize("name", ["cache", "cache_dtype", "no_cache"])
def test_a_flag_of_the_cache_is_said_where_nothing_is_cached(name: str, caplog: pytest.LogCaptureFixture) -> None:
    check_model_flags(config(model="onehot", **{name: OTHER[name]}))
    assert f"--{name.replace('_', '-')} is" in caplog.text
    assert "onehot is never cached" in caplog.text


@pytest.mark.parametrize("key", MODELS.names())
def test_defaults_apply_to_every_model_and_a_layer_to_every_model_with_weights(key: str) -> None:
    check_model_flags(config(model=key))
    lacking = lacking_of_model(key)
    assert ("weights" in lacking) == (MODELS.get(key).n_parameters == 0)
    assert ("revision" in lacking) == (MODELS.get(key).source != "hub")
    found: set[str] = set()
    for apart in ({"shots", "no_cache"}, {"shots", "cache", "cache_dtype"}):  # few labels take no grammar
        together = {name: value for name, value in OTHER.items() if name not in apart}
        found |= set(given_without_effect(config(**together), lacking))
    assert found == {name for name, need in NEEDS.items() if need in lacking}


def test_a_revision_belongs_to_the_hub(tmp_path: Path) -> None:
    for model, checkpoint in (("bend-mini", None), (str(tmp_path), None), ("dnabert2", str(tmp_path))):
        with pytest.raises(ConfigError, match=r"--revision is abc, but .* is not read from the Hub"):
            check_model_flags(config(model=model, checkpoint=checkpoint, revision="abc"))
    check_model_flags(config(model="owner/name", revision="abc"))
    check_model_flags(config(model="bend-mini", checkpoint="owner/name", revision="abc"))


@pytest.mark.parametrize(
    ("task", "name", "said"),
    [
        ("cpg_methylation", "ref_mismatch", "cpg_methylation has no variants"),
        ("variant_effects_expression", "out_of_bounds", "variant_effects_expression has variants"),
    ],
)
def test_a_flag_of_other_rows_is_refused(task: str, name: str, said: str) -> None:
    given = DataConfig(task=(task,), data="sample")
    sources_of(given)
    with pytest.raises(ConfigError, match=said):
        sources_of(replace(given, **{name: OTHER[name]}))


@pytest.mark.parametrize(
    "flags",
    [
        ["train", "--model", "onehot", "--layer", "3"],
        ["train", "--model", "onehot", "--random-init"],
        ["train", "--model", "basset-supervised", "--model-dtype", "float16"],
        ["train", "--model", "bend-mini", "--revision", "abc"],
        ["run", "--model", "onehot", "--layer", "3"],
        ["embed", "--model", "onehot", "--layer", "3"],
        ["train", "--model", "onehot", "--ref-mismatch", "drop"],
    ],
)
def test_the_command_ends_with_status_2_before_it_reads_data(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*flags, "--task", "cpg_methylation", "--data", "sample"]) == 2
    assert "leave the flag out" in capsys.readouterr().err
