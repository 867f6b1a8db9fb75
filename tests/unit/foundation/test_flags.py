"""Everything that depends on a flag is derived from its declaration, also for a field that a subclass adds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bend_hf.config import RunConfig, flag, flags_of, settings_in_key
from bend_hf.publishing.model_card_runs import command as command_of
from bend_hf.publishing.publishable import _config_reasons
from bend_hf.publishing.results import not_settings
from bend_hf.runs.controls import CONTROLS
from tests.records import record


@dataclass(frozen=True, kw_only=True)
class WiderConfig(RunConfig):
    dropout: float = flag(0.0, "a setting of the training", concerns="recipe")
    adapter: str = flag("none", "a setting of the model", concerns="model")
    weights_file: Path | None = flag(None, "a file known by its checksum", by_content=True, in_command=False)
    log_every: int = flag(10, "how often to log", "nothing")


def test_an_added_field_is_in_the_run_key_only_if_its_value_affects_scores() -> None:
    assert settings_in_key(WiderConfig) - settings_in_key(RunConfig) == {"dropout", "adapter"}


def test_an_added_field_separates_groups_of_records_only_if_its_value_affects_scores() -> None:
    assert not_settings(WiderConfig) - not_settings() == {"weights_file", "log_every"}
    assert {"seed", "seeds", "out", "run_key", "model", "task"} <= not_settings()


def test_an_added_field_is_in_the_command_of_a_card() -> None:
    config = {"task": ["a"], "dropout": 0.5, "log_every": 20, "weights_file": "/here/w.bin"}
    assert command_of(config, WiderConfig) == "bend-hf train --task a --dropout 0.5 --log-every 20"


def test_an_added_field_of_the_recipe_must_be_at_its_default_to_be_published() -> None:
    changed = record()
    changed = replace(changed, config={**changed.config, "dropout": 0.5, "log_every": 20})
    assert _config_reasons(changed, WiderConfig) == [
        *_config_reasons(changed),
        "dropout is 0.5, the benchmark uses 0.0",
    ]


def test_the_one_hot_control_resets_an_added_field_of_the_model() -> None:
    config = WiderConfig(task=("a",), model="dnabert2", layer=3, adapter="lora", dropout=0.5, seed=4)
    make = CONTROLS.get("onehot").model
    assert make is not None
    control = make(config)
    assert control == replace(config, model="onehot", layer=-1, adapter="none")


def test_every_flag_has_a_help_text_without_a_full_stop() -> None:
    texts = [info.help for info in flags_of(RunConfig).values()]
    assert all(text and not text.endswith(".") for text in texts)
