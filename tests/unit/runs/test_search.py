"""The search of bend-hf-1: the best head on validation is kept, test labels are not seen, finished trials are read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bend_hf.config import RunConfig
from bend_hf.evaluation.predictions import read_predictions
from bend_hf.evaluation.record import ResultRecord
from bend_hf.publishing.publishable import reasons_not_to_publish
from bend_hf.runs import run as runs
from bend_hf.runs import train_head
from bend_hf.runs.outcome import Outcome, outcome_table
from bend_hf.tasks import TASKS
from bend_hf.training import head_trainer
from tests.records import schema_errors
from tests.tiny import write_data

pytestmark = pytest.mark.slow

TASK = "cpg_methylation"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), (TASK,), n=40)


@pytest.fixture
def config(data: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(task=(TASK,), data=str(data), model="onehot", out=tmp_path / "out", epochs=2, protocol="bend-hf-1")


def run_of(record: ResultRecord) -> dict[str, object]:
    assert record.training is not None
    (found,) = record.training["runs"]  # type: ignore[misc]  # a list of one object
    assert isinstance(found, dict)
    return found


def test_the_head_that_is_best_on_validation_is_kept_and_the_record_says_what_was_searched(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_inputs, opened = train_head._open_inputs, []

    def noted(*args: object) -> object:
        opened.append(args[-1])
        return open_inputs(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(train_head, "_open_inputs", noted)
    (outcome,) = runs.run(config)
    assert opened == ["train", "validation", "test"], "embeddings are opened once for all trials"
    record = outcome.record
    found = run_of(record)
    trials: list[dict[str, float]] = found["trials"]  # type: ignore[assignment]
    assert len(trials) == 6
    best = max(trials, key=lambda trial: trial["validation"])
    assert found["chosen"] == {"hidden": best["hidden"], "learning_rate": best["learning_rate"]}
    assert found["learning_rate"] == best["learning_rate"]
    assert record.training is not None
    assert record.training["search"] == {
        "values": {"hidden": [8, 64], "learning_rate": [0.0003, 0.001, 0.003]},
        "by": "auroc on the validation split",
        "trials": 6,
    }
    assert record.training["head"] == {"kind": "CnnSpec", "hidden": [8, 64], "kernel": 3, "pool_bp": 512}
    assert record.config["learning_rate"] is None
    assert (found["rows"], found["batch_size"], found["epochs"], found["steps"]) == (20, 4, 2, 10)
    assert found["few_steps"] is True
    assert not schema_errors(json.loads(outcome.path.read_text()))


def test_test_labels_change_neither_the_search_nor_the_predictions(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (one,) = runs.run(config)
    open_data = runs.open_data

    def turned(*args: object) -> object:
        opened = open_data(*args)  # type: ignore[arg-type]
        test = opened.subsets["test"]
        every = set(range(len(opened.task.label_names)))
        labels = [sorted(every - set(row)) for row in test["labels"]]
        turned_test = test.remove_columns("labels").add_column("labels", labels).cast(test.features)
        return replace(opened, subsets={**opened.subsets, "test": turned_test})

    monkeypatch.setattr(runs, "open_data", turned)
    (other,) = runs.run(replace(config, out=tmp_path / "turned"))
    assert one.record.value != other.record.value
    assert run_of(one.record)["chosen"] == run_of(other.record)["chosen"]
    scores = [read_predictions(outcome.path.with_suffix(".parquet")).score for outcome in (one, other)]
    assert np.array_equal(*scores)


def test_a_trial_that_was_finished_before_a_kill_is_not_repeated(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (whole,) = runs.run(replace(config, out=tmp_path / "whole"))
    train_trial, steps = train_head._train_trial, head_trainer.HeadTrainer.parts_of_step
    started: list[int | None] = []
    n_steps: list[int] = []

    def dies_in_the_third(*args: object) -> object:
        started.append(args[-1])  # type: ignore[arg-type]
        if len(started) == 3:
            raise KeyboardInterrupt
        return train_trial(*args)  # type: ignore[arg-type]

    def counted(self: object, *args: object) -> object:
        n_steps.append(1)
        return steps(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(train_head, "_train_trial", dies_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        runs.run(config)
    monkeypatch.setattr(head_trainer.HeadTrainer, "parts_of_step", counted)
    (resumed,) = runs.run(config)
    assert len(n_steps) == 4 * 10, "four of six trials, of ten steps each"
    assert resumed.record.metrics == whole.record.metrics
    assert run_of(resumed.record)["trials"] == run_of(whole.record)["trials"]
    assert not list(config.out.glob(".*")), "no state is left"


def test_a_given_learning_rate_leaves_the_size_to_search(config: RunConfig) -> None:
    (outcome,) = runs.run(replace(config, learning_rate=0.002, epochs=1))
    assert [sorted(trial) for trial in run_of(outcome.record)["trials"]] == [  # type: ignore[attr-defined]
        ["best_epoch", "hidden", "validation"]
    ] * 2
    assert "learning_rate is 0.002, the protocol searches it" in reasons_not_to_publish(outcome.record)


def test_bend_2024_searches_nothing_and_says_so(config: RunConfig) -> None:
    (outcome,) = runs.run(replace(config, protocol="bend-2024"))
    found = run_of(outcome.record)
    assert outcome.record.training is not None
    assert outcome.record.training["search"] == {
        "values": {},
        "by": None,
        "trials": 1,
        "reason": "bend-2024 takes the settings of BEND",
    }
    assert not {"chosen", "trials"} & found.keys()
    declared = TASKS.get(TASK).training
    assert declared is not None
    assert (found["batch_size"], found["steps"]) == (declared.batch_size, 2)


def test_a_run_with_few_steps_is_marked_in_log_and_table(config: RunConfig, caplog: pytest.LogCaptureFixture) -> None:
    (outcome,) = runs.run(replace(config, protocol="bend-2024"))
    assert "the head took 2 steps of the optimizer, fewer than 50" in caplog.text
    assert "2 steps of the optimizer" in outcome_table([outcome])
    enough = replace(outcome.record, training={"runs": [{"fold": None, "steps": 50, "few_steps": False}]})
    assert "steps of the optimizer" not in outcome_table([Outcome(record=enough, path=outcome.path)])
