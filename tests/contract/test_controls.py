"""What every control must hold: one declaration, and predictions of every item or the configuration of a model."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from bend_hf.config import RunConfig
from bend_hf.data.dataset import TaskData, load_task
from bend_hf.runs.controls import CONTROLS, ControlSpec
from bend_hf.runs.outcome import scores_of
from bend_hf.tasks import TASKS
from tests.tiny import write_data

ONE_OF_EACH_LABEL = ("gene_finding", "enhancer_annotation", "cpg_methylation", "variant_effects_disease")
ALL = [pytest.param(control, id=control.key) for control in CONTROLS]
PREDICTING = [pytest.param(control, id=control.key) for control in CONTROLS if control.predict is not None]
MODELS = [pytest.param(control, id=control.key) for control in CONTROLS if control.model is not None]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskData]:
    folder = write_data(tmp_path_factory.mktemp("data"), ONE_OF_EACH_LABEL, n=20)
    return {name: load_task(name, str(folder)) for name in ONE_OF_EACH_LABEL}


@pytest.mark.parametrize("control", ALL)
def test_a_control_either_predicts_or_is_a_model(control: ControlSpec) -> None:
    assert (control.predict is None) != (control.model is None)
    assert bool(control.head) == (control.predict is not None), "a record names what was learned"
    assert CONTROLS.get(control.key) is control


@pytest.mark.parametrize("control", ALL)
def test_a_control_is_described(control: ControlSpec) -> None:
    assert control.title
    assert control.text.endswith(".")
    assert control.key == control.key.lower()
    assert " " not in control.key


@pytest.mark.parametrize("control", ALL)
def test_a_control_that_needs_an_installation_says_of_what(control: ControlSpec) -> None:
    if (stated := control.provenance) is None:
        pytest.skip("it needs nothing of the machine")
    assert stated.install.startswith("install it with")
    assert stated.source.startswith("https://")
    assert stated.license
    assert stated.trained_on
    assert (control.why_absent() is None) == (stated.version() is not None)


@pytest.mark.parametrize("control", ALL)
def test_a_control_applies_to_a_task_or_says_why_not(control: ControlSpec) -> None:
    reasons = {task.key: control.why_not(task) for task in TASKS}
    assert None in reasons.values(), "it applies to no task"
    assert all(reason is None or task in reason for task, reason in reasons.items())


@pytest.mark.parametrize("name", ONE_OF_EACH_LABEL)
@pytest.mark.parametrize("control", PREDICTING)
def test_a_control_predicts_every_item_and_the_same_again(
    control: ControlSpec, name: str, opened: dict[str, TaskData]
) -> None:
    data = opened[name]
    if control.why_not(data.task) is not None:
        pytest.skip(str(control.why_not(data.task)))
    if (absent := control.why_absent()) is not None:
        pytest.skip(absent)
    assert control.predict is not None
    splits = data.splits(1 if data.n_folds else None)
    first, again = (control.predict(data.task, splits, 0) for _ in range(2))
    assert first.predictions.item.tolist() == splits["test"]["item"]
    assert first.predictions.label_names == data.task.label_names
    assert first.predictions.table() == again.predictions.table()
    assert first.learned == again.learned
    values = first.predictions.score if first.predictions.score is not None else first.predictions.predicted
    assert values is not None
    assert np.isfinite(values).all()
    assert values.shape == first.predictions.target.shape
    assert [score.metric for score in scores_of(data.task, first.predictions)] == list(data.task.metrics)
    assert first.n_features >= 1
    assert first.n_parameters >= 0


@pytest.mark.parametrize("control", MODELS)
def test_a_control_that_is_a_model_keeps_task_seed_and_training(control: ControlSpec) -> None:
    config = RunConfig(
        task=("gene_finding",), model="dnabert2", seed=3, head="linear", epochs=2, out=Path("here"), data="sample"
    )
    assert control.model is not None
    other = control.model(config)
    assert other is not None
    assert other != config
    changed = {item.name for item in fields(config) if getattr(other, item.name) != getattr(config, item.name)}
    assert not changed & {"task", "data", "seed", "head", "epochs", "out", "protocol"}
    assert control.model(other) in (None, other), "the control of a control is itself, or there is none"
