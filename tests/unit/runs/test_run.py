"""One run: what is checked before a model loads, what is run, and what the record says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import bend_hf
from bend_hf import train
from bend_hf.cli._main import main
from bend_hf.config import RunConfig
from bend_hf.data.dataset import TaskData, task_openers
from bend_hf.errors import BendError, ConfigError
from bend_hf.evaluation.predictions import Predictions, read_predictions
from bend_hf.evaluation.record import find_records, read_record
from bend_hf.publishing.publishable import REASONS, reasons_not_to_publish
from bend_hf.runs import outcome as outcomes
from bend_hf.runs import run as runs
from bend_hf.runs.leftovers import find_leftovers
from bend_hf.runs.outcome import outcome_table
from bend_hf.runs.settings import seeds_of
from bend_hf.tasks import TASKS
from bend_hf.types import Json
from tests.tiny import write_data

TASK = "cpg_methylation"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), (TASK, "enhancer_annotation"), n=20)


@pytest.fixture
def config(data: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(task=(TASK,), data=str(data), model="onehot", out=tmp_path / "out", epochs=1, batch_size=8)


def test_prepare_gives_one_task_for_each_task_and_seed(config: RunConfig) -> None:
    prepared = runs.prepare(replace(config, task=(TASK, "enhancer_annotation"), seeds=(4, 7)))
    found = [(one.data.task.key, one.config.seed, one.config.seeds) for one in prepared]
    assert found == [
        (TASK, 4, ()),
        (TASK, 7, ()),
        ("enhancer_annotation", 4, ()),
        ("enhancer_annotation", 7, ()),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold": (1,)}, "has no folds; leave --fold out"),
        ({"task": ("enhancer_annotation",), "fold": (11,)}, "--fold is 11, but enhancer_annotation has folds 1 to 10"),
        ({"model": "onehott"}, "did you mean 'onehot'"),
        ({"tracker": ("tensorbord",)}, "did you mean 'tensorboard'"),
        ({"metric": ("aurocc",)}, "unknown metric 'aurocc'; did you mean 'auroc'"),
    ],
)
def test_a_bad_input_is_refused_before_a_model_loads(
    config: RunConfig, changes: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "open_model", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(BendError, match=message):
        runs.run(replace(config, **changes))  # type: ignore[arg-type]  # values of several fields


def test_the_key_of_a_run_depends_on_what_affects_scores_only(config: RunConfig) -> None:
    def key(**changes: object) -> str:
        (task,) = runs.prepare(replace(config, **changes))  # type: ignore[arg-type]  # values of several fields
        return runs.model_run(task, runs.open_embedder(task.config)).key

    plain, metrics = key(), TASKS.get(TASK).metrics
    assert plain == key(checkpoint_every=7) == key(controls=True) == key(head="cnn") == key(metric=metrics)
    assert len({plain, key(seed=1), key(weight_decay=0.5), key(metric=("auprc",)), key(head="linear")}) == 5


def test_other_metrics_are_reported_instead_of_the_tasks_and_not_published(config: RunConfig) -> None:
    (outcome,) = runs.run(replace(config, metric=("auprc", "auroc")))
    record = read_record(outcome.path)
    assert record.main_metric == "auprc"
    assert list(record.metrics) == ["auprc", "auroc"]
    assert "interval" in record.metrics["auprc"]  # type: ignore[operator]  # an object
    assert REASONS["metric"] in reasons_not_to_publish(record)
    assert "auprc" in outcome_table([outcome])


def test_controls_of_a_run_stand_in_its_record(config: RunConfig) -> None:
    task = runs.prepare(replace(config, controls=True, model="resnet-supervised"))[0]
    controls = [runs.run_task(control) for control in runs.controls_of(task, ["gc", "prevalence"], with_model=True)]
    outcome = runs.run_task(runs.model_run(replace(task, config=config), runs.open_embedder(config)), controls)
    assert set(outcome.record.controls) == {"gc", "prevalence"}
    assert outcome.control is None
    assert [one.control for one in controls] == ["gc", "prevalence"]


def test_controls_are_run_for_every_seed(config: RunConfig) -> None:
    outcomes = runs.run_controls(replace(config, seeds=(0, 1)), ["prevalence"])
    assert [outcome.record.config["seed"] for outcome in outcomes] == [0, 1]
    assert [outcome.record.config["seeds"] for outcome in outcomes] == [[], []]


def test_a_run_leaves_its_record_predictions_and_head_and_nothing_else(config: RunConfig) -> None:
    (outcome,) = runs.run(config)
    stem = outcome.path.stem
    left = sorted(path.name for path in config.out.iterdir())
    assert left == [outcome.path.name, f"{stem}.parquet", f"{stem}.safetensors"]
    assert outcome.record.coverage["scored"] == outcome.record.coverage["items"]


def test_an_empty_file_stands_for_the_predictions_until_all_but_the_record_is_written(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what a killed run leaves is known as such; see ``leftovers``."""
    write, left = outcomes.write_predictions, list[set[str]]()

    def noted(predictions: Predictions, path: Path) -> str:
        left.append(
            {item.path.name.partition(".")[2] for item in find_leftovers([path.parent]) if TASK in item.path.name}
        )
        return write(predictions, path)

    monkeypatch.setattr(outcomes, "write_predictions", noted)
    runs.run(config)
    assert left == [{"parquet", "safetensors"}]
    runs.run_controls(replace(config, shots=("1",)), ["prevalence"])
    assert left[1:] == [{"parquet"}, {"parquet", "shots_probe.parquet"}]


def test_the_module_train_is_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = f"--task {TASK} --data {data} --model onehot --epochs 1 --batch-size 8 --out {tmp_path}"
    assert train.main(flags.split()) == 0
    (path,) = find_records([tmp_path])
    assert capsys.readouterr().out.splitlines()[-1] == f"record: {path}"
    assert train.main(["--task", "cpg_methylatoin"]) == 2
    assert "did you mean 'cpg_methylation'" in capsys.readouterr().err


def test_train_describes_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        train.main(["--help"])
    text = capsys.readouterr().out
    assert "Train and score one model" in text
    assert "--checkpoint-every" in text


def test_ctrl_c_ends_train_as_it_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(config: RunConfig) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "run", interrupted)
    assert train.main(["--task", TASK]) == 130
    assert "interrupted" in capsys.readouterr().err.lower()


def test_a_run_without_a_head_or_a_variant_is_refused(config: RunConfig) -> None:
    (task,) = runs.prepare(config)
    run = runs.model_run(task, runs.open_embedder(config))
    with pytest.raises(ConfigError, match="is not a variant task and has no head"):
        runs.compute(replace(run, head=None), "name")


def with_origin(data: TaskData, origin: str, **facts: Json) -> TaskData:
    return replace(data, facts={**data.facts, "origin": origin, **facts})


@pytest.mark.parametrize(
    ("changes", "origin", "seeds"),
    [
        ({}, "hub", (0, 1, 2)),
        ({}, "folder", (0, 1, 2)),
        ({"protocol": "bend-hf-1"}, "built", (0, 1, 2)),
        ({"seeds": (0,)}, "hub", (0,)),
        ({"seeds": (4, 7)}, "sample", (4, 7)),
        ({"seed": 5}, "hub", (5,)),
        ({}, "sample", (0,)),
        ({}, "files", (0,)),
        ({"limit": 10}, "hub", (0,)),
        ({"epochs": 3}, "hub", (0,)),
        ({"random_init": True, "model": "dnabert6"}, "hub", (0,)),
    ],
)
def test_scores_that_can_be_published_have_three_seeds(
    config: RunConfig, changes: dict[str, object], origin: str, seeds: tuple[int, ...]
) -> None:
    (open_one,) = task_openers(config).values()
    data = with_origin(open_one(), origin)
    given = replace(RunConfig(task=(TASK,)), **changes)  # type: ignore[arg-type]  # values of several fields
    assert seeds_of(given, data) == seeds


def test_the_log_says_how_to_train_once(config: RunConfig, caplog: pytest.LogCaptureFixture) -> None:
    (open_one,) = task_openers(config).values()
    with caplog.at_level("INFO"):
        seeds_of(RunConfig(task=(TASK,)), with_origin(open_one(), "hub"))
    assert (
        f"{TASK}: training with seeds 0, 1, 2, because one training says little; --seeds 0 trains once" in caplog.text
    )


def test_a_task_that_trains_nothing_has_one_seed(config: RunConfig) -> None:
    (open_one,) = task_openers(config).values()
    data = with_origin(replace(open_one(), task=TASKS.get("variant_effects_disease")), "hub")
    assert seeds_of(RunConfig(task=(TASK,)), data) == (0,)


def test_without_averages_variants_have_the_score_of_bend_but_no_distances_around_it(tmp_path: Path) -> None:
    task = "variant_effects_disease"
    given = RunConfig(task=(task,), data="sample", model="onehot", limit=8, out=tmp_path)
    (whole,), (short,), (again,) = (
        runs.run(config) for config in (given, replace(given, no_averages=True), replace(given, no_averages=True))
    )
    distances = {"window_distance", "sequence_distance"}
    by_score = [one.record.metrics["auroc"]["detail"]["by_score"] for one in (whole, short)]  # type: ignore[index,call-overload]
    assert set(by_score[0]) - set(by_score[1]) == distances
    assert short.record.value == whole.record.value
    left = read_predictions(short.path.with_suffix(".parquet"))
    assert all(left.columns[name].null_count == len(left) for name in distances)
    assert again.path == short.path != whole.path, "the flag is part of the key"


def test_a_finished_run_is_not_repeated_by_any_command_unless_it_is_forced(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    flags = f"{TASK} --data {data} --model onehot --epochs 1 --batch-size 8 --out {tmp_path}".split()
    assert main(["train", *flags]) == 0
    fresh = capsys.readouterr().out
    (path,) = find_records([tmp_path])
    with caplog.at_level("INFO", logger="bend_hf"):
        assert main(["train", *flags]) == 0
    assert capsys.readouterr().out == fresh, "the table is that of the fresh run"
    assert f"{TASK} / onehot / seed 0 was there: {path}" in caplog.text
    assert main(["run", *flags]) == 0
    assert "was there" in capsys.readouterr().out
    found = bend_hf.evaluate("onehot", TASK, data=str(data), epochs=1, batch_size=8, out=tmp_path)
    assert [outcome.path for outcome in found.outcomes] == [path]
    assert find_records([tmp_path]) == [path], "no command has written another record"
    assert main(["train", *flags, "--force"]) == 0
    assert len(find_records([tmp_path])) == 2
    assert main(["run", *flags, "--force"]) == 0
    assert "was there" not in capsys.readouterr().out
    bend_hf.evaluate("onehot", TASK, data=str(data), epochs=1, batch_size=8, out=tmp_path, force=True)
    records = [read_record(one) for one in find_records([tmp_path])]
    assert len(records) == 4
    assert len({record.value for record in records}) == 1, "the same run gives the same score"
    assert len({str(record.config["run_key"]) for record in records}) == 1, "force is no part of the key"


def test_a_change_that_affects_scores_is_another_run(config: RunConfig) -> None:
    (first,) = runs.run(config)
    (again,) = runs.run(replace(config, checkpoint_every=7))
    (other,) = runs.run(replace(config, weight_decay=0.5))
    assert (first.was_there, again.was_there, other.was_there) == (False, True, False)
    assert again.path == first.path != other.path


@pytest.mark.slow
def test_controls_that_a_finished_run_was_recorded_without_are_run(config: RunConfig) -> None:
    config = replace(config, model="resnet-supervised")
    (first,) = runs.run(config)
    assert first.record.controls == {}
    (again,) = runs.run(replace(config, controls=True))
    assert (again.was_there, again.path) == (True, first.path)
    assert {"gc", "kmer", "prevalence"} <= set(again.record.controls)
    controls = set(find_records([config.out])) - {first.path}
    assert len(controls) == len(again.record.controls)
    (forced,) = runs.run(replace(config, controls=True, force=True))
    assert set(find_records([config.out])) - controls == {first.path, forced.path}, "controls are kept"


def test_controls_alone_are_repeated_if_forced(config: RunConfig) -> None:
    (first,) = runs.run_controls(config, ["gc"])
    (again,) = runs.run_controls(config, ["gc"])
    (forced,) = runs.run_controls(replace(config, force=True), ["gc"])
    assert (first.was_there, again.was_there, forced.was_there) == (False, True, False)
    assert first.path == again.path != forced.path


@pytest.mark.parametrize("command", ["train", "run"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--head cnnn", "unknown head 'cnnn'; did you mean 'cnn'?"),
        ("--metric mccc", "unknown metric 'mccc'"),
        ("--fold 1", "gene_finding has no folds; leave --fold out"),
        ("--metric auroc", "metric auroc cannot score gene_finding"),
    ],
)
def test_names_are_checked_before_data_are_opened_or_a_model_is_loaded(
    command: str,
    words: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def opened(*_: object, **__: object) -> None:
        pytest.fail("data or a model were opened")

    if command == "run" and said.endswith(("out", "gene_finding")):
        pytest.skip("a cell of a grid that does not fit fails alone")
    monkeypatch.setattr(runs, "open_data", opened)
    monkeypatch.setattr(runs, "open_embedder", opened)
    status = main([command, "--task", "gene_finding", "--data", "sample", "--out", str(tmp_path), *words.split()])
    assert status == 2
    assert said in capsys.readouterr().err


def test_a_fold_that_the_task_does_not_declare_is_refused_before_data_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "open_data", lambda *_: pytest.fail("data were opened"))
    words = ["--task", "enhancer_annotation", "--data", "sample", "--out", str(tmp_path), "--fold", "11"]
    assert main(["train", *words]) == 2
    assert "--fold is 11, but enhancer_annotation has folds 1 to 10" in capsys.readouterr().err
