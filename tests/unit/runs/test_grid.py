"""The grid: what is done is skipped, a failure stops nothing else, and the exit status tells."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from bend_hf.cli._main import main
from bend_hf.config import RunConfig
from bend_hf.embedders import load_embedder
from bend_hf.errors import ConfigError, RegistryError
from bend_hf.evaluation.record import read_record
from bend_hf.lease import _place, take
from bend_hf.publishing.models import model_label
from bend_hf.publishing.results import group_records
from bend_hf.runs import grid
from bend_hf.runs import run as train
from bend_hf.runs.grid import CellResult, grid_table, run_grid, with_model
from bend_hf.runs.outcome import RunResults
from bend_hf.training.trackers import check_trackers
from tests.cached import start
from tests.command_line import parse_run
from tests.fake_checkpoints import make_tiny
from tests.records import schema_errors
from tests.tiny import write_data

FAST = ("--epochs", "1", "--batch-size", "8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), ["gene_finding", "cpg_methylation"], n=16)


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]


def test_finished_cells_are_skipped_and_new_ones_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["run", "--task", "gene_finding", "--data", str(data), "--out", str(tmp_path), *FAST]
    assert main([*flags, "--model", "onehot", "--seeds", "0", "1"]) == 0
    first = {path.name for path in tmp_path.glob("*.json")}
    assert len(first) == 2
    assert "over 2 of 2 seeds" in capsys.readouterr().out
    assert main([*flags, "--model", "onehot", "--seeds", "0", "1", "2"]) == 0
    text = capsys.readouterr().out
    assert text.count("was there") == 2
    assert text.count("  done") == 1
    assert len(list(tmp_path.glob("*.json"))) == 3
    assert first < {path.name for path in tmp_path.glob("*.json")}


def test_a_changed_setting_is_another_cell(data: Path, tmp_path: Path) -> None:
    config = RunConfig(task=("gene_finding",), data=str(data), out=tmp_path, epochs=1, batch_size=8)
    run_grid(config, ["onehot"])
    elsewhere = RunConfig(**{**vars(config), "checkpoint_every": 7})  # changes no number
    assert [cell.skipped for cell in run_grid(elsewhere, ["onehot"])] == [True]
    changed = RunConfig(**{**vars(config), "weight_decay": 0.02})
    assert [cell.skipped for cell in run_grid(changed, ["onehot"])] == [False]


def test_a_cell_that_fails_stops_no_other_and_is_named_at_the_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compute = train.compute

    def failing(run: train.Run, name: str) -> RunResults:
        if run.config.seed == 1:
            raise RuntimeError("out of memory")
        return compute(run, name)

    monkeypatch.setattr("bend_hf.runs.run.compute", failing)
    flags = ["--task", "gene_finding", "--model", "onehot", "--seeds", "0", "1", "2", "--data", str(data)]
    assert main(["run", *flags, "--out", str(tmp_path), *FAST]) == 1
    text = capsys.readouterr().out
    assert "1 of 3 failed:" in text
    assert "gene_finding / onehot / seed 1: memory ran out (out of memory); use smaller batches" in text
    assert [record["config"]["seed"] for record in records(tmp_path)] == [0, 2]
    monkeypatch.setattr("bend_hf.runs.run.compute", compute)
    assert main(["run", *flags, "--out", str(tmp_path), *FAST]) == 0
    assert len(records(tmp_path)) == 3


def test_a_baseline_that_does_not_fit_a_task_fails_alone(data: Path, tmp_path: Path) -> None:
    config = RunConfig(task=("gene_finding", "cpg_methylation"), data=str(data), out=tmp_path, epochs=1, batch_size=4)
    genes, cpg = run_grid(config, ["basset-supervised"])
    assert "one label window each" in str(genes.error)
    assert cpg.record is not None
    assert cpg.record.model["model"] == "basset-supervised"
    assert cpg.record.training is not None
    assert cpg.record.training["head"] == {"kind": "BassetSpec", "window_bp": 512}


def run_and_note(argv: list[str]) -> None:
    """Run a grid, and write down what is computed and what the table says."""
    from bend_hf.runs import run as runs

    compute = runs.compute

    def noted(run: runs.Run, name: str) -> RunResults:
        with (run.config.out / "computed.txt").open("a") as file:
            file.write(f"{run.label} {run.config.seed}\n")
        return compute(run, name)

    runs.compute = noted
    out = Path(argv[argv.index("--out") + 1])
    with (out / f"table-{os.getpid()}.txt").open("w") as file, contextlib.redirect_stdout(file):
        status = main(argv)
    sys.exit(status)


@pytest.mark.slow
def test_equal_grids_at_once_share_the_cells(data: Path, tmp_path: Path) -> None:
    flags = ["run", "--task", "gene_finding", "--data", str(data), "--out", str(tmp_path), *FAST, "--controls"]
    argv = [*flags, "--model", "resnet-supervised", "--seeds", "0", "1"]
    processes = [start(run_and_note, argv) for _ in range(3)]
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * 3
    computed = (tmp_path / "computed.txt").read_text().splitlines()
    assert len(computed) == len(set(computed))
    assert {"resnet-supervised 0", "resnet-supervised 1", "onehot 0"} <= set(computed)
    assert len(records(tmp_path)) == len(computed)
    texts = [path.read_text() for path in tmp_path.glob("table-*.txt")]
    assert sum(text.count("  done") for text in texts) == 2
    assert sum(text.count("was there") for text in texts) == 4
    assert not list(tmp_path.glob(".*.lock*"))


def test_a_cell_of_a_dead_process_is_taken_over_and_a_living_one_is_waited_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(task=("gene_finding",), data=str(data), out=tmp_path, epochs=1, batch_size=8)
    (cell,) = run_grid(config, ["onehot"])
    assert cell.record is not None
    lock = tmp_path / f".{cell.record.config['run_key'][:32]}.lock"
    lease = take(lock)
    assert lease is not None
    asleep: list[float] = []

    def end(seconds: float) -> None:
        asleep.append(seconds)
        lease.release()

    monkeypatch.setattr(grid.time, "sleep", end)
    (again,) = run_grid(config, ["onehot"])
    assert again.skipped
    assert len(asleep) == 1
    assert cell.path is not None
    cell.path.unlink()
    lock.write_text(json.dumps({"token": "x", "place": _place(), "pid": 4194305, "born": "1"}))
    (again,) = run_grid(config, ["onehot"])
    assert not again.skipped
    assert len(asleep) == 1
    assert not lock.exists()


def test_several_local_checkpoints_run_in_one_grid_under_their_own_names(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, models = "caduceus-ph-1k", []
    for seed, name in enumerate(("first", "second")):
        folder = make_tiny(key, tmp_path / name)
        drawn = load_embedder(key, checkpoint=folder, random_init=True, seed=seed).model
        assert drawn is not None
        save_file({key: value.clone() for key, value in drawn.state_dict().items()}, folder / "model.safetensors")
        models.append(f"{key}={folder}")
    out = tmp_path / "out"
    flags = ["run", "--task", "gene_finding", "--data", str(data), "--out", str(out), "--no-cache", *FAST]
    assert main([*flags, "--model", *models]) == 0
    text = capsys.readouterr().out
    assert all(text.count(model) == 1 for model in models)
    assert "seeds" not in text  # two checkpoints are not two seeds of one model
    assert sorted(one["config"]["checkpoint"] for one in records(out)) == [model.split("=")[1] for model in models]
    names = sorted(path.name for path in out.glob("*.json"))
    assert ["caduceus-ph-1k-first" in names[0], "caduceus-ph-1k-second" in names[1]] == [True, True]
    assert {model_label(read_record(path)) for path in out.glob("*.json")} == {
        f"{key}, own weights first",
        f"{key}, own weights second",
    }


@pytest.mark.parametrize(
    ("model", "checkpoint", "message"),
    [
        ("dnabert6=", None, "is not complete; expected KEY=FOLDER"),
        ("=folder", None, "is not complete; expected KEY=FOLDER"),
        ("dnabert6=folder", "other", "and so does --checkpoint 'other'; leave one out"),
    ],
)
def test_a_model_with_weights_must_be_complete(model: str, checkpoint: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_model(RunConfig(task=("gene_finding",), checkpoint=checkpoint), model)


def test_a_mistyped_model_stops_the_grid_before_it_starts(data: Path, tmp_path: Path) -> None:
    config = RunConfig(task=("gene_finding",), data=str(data), out=tmp_path)
    with pytest.raises(RegistryError, match="did you mean 'resnet-supervised'"):
        run_grid(config, ["onehot", "resnet-supervized"])
    assert not records(tmp_path)


def test_the_table_counts_and_names() -> None:
    text = grid_table([CellResult(task="t", model="m", seed=3, error="no disk")])
    assert "failed" in text
    assert text.endswith("1 of 1 failed:\n  t / m / seed 3: no disk")


def test_a_probe_and_a_schedule_are_in_the_record(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('task = "gene_finding"\nhead = "linear"\nschedule = "cosine"\nepochs = 3\nbatch-size = 8\n')
    config = parse_run(["--config", str(file), "--epochs", "1", "--data", str(data), "--out", str(tmp_path / "out")])
    train.run(config)
    (record,) = records(tmp_path / "out")
    assert record["training"]["head"] == {"kind": "LinearSpec", "pool_bp": None}
    resolved = record["config"]
    assert (resolved["epochs"], resolved["schedule"], resolved["learning_rate"]) == (1, "cosine", 0.003)
    assert len(record["training"]["runs"][0]["history"]) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch = 3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("epochs = '3'", "epochs = '3' is str; expected int"),
        ("epochs = true", "epochs = True is bool; expected int"),
        ("schedule = 'cosinus'", "unknown schedule 'cosinus'; did you mean 'cosine'?"),
        ("batch-size = 2\nbatch_size = 3", "given twice"),
        ("epochs = ", "cannot be read as TOML"),
    ],
)
def test_a_file_with_a_mistake_is_refused(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(content)
    with pytest.raises(ConfigError) as error:
        parse_run(["--config", str(file), "--task", "gene_finding"])
    assert message in str(error.value)


def test_values_of_a_file_are_those_of_the_flags(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'task = ["gene_finding"]\nlearning-rate = 1\nfold = [1, 2]\n'
        'out = "x"\nno-cache = true\nmixed_precision = "bf16"\n'
    )
    ours = parse_run(["--config", str(file)])
    flags = "--task gene_finding --learning-rate 1 --fold 1 2 --out x --no-cache --mixed-precision bf16"
    assert ours == parse_run(flags.split())


def test_a_tracker_that_is_unknown_or_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        check_trackers(["tensorbord"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="'wandb' is not installed; pip install wandb"):
        check_trackers(["wandb"])


def test_a_tracker_gets_every_epoch(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = RunConfig(
        task=("gene_finding",), data=str(data), out=tmp_path, epochs=3, batch_size=8, tracker=("tensorboard",)
    )
    (outcome,) = train.run(config)
    (folder,) = (tmp_path / "trackers").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert outcome.record.training is not None
    history = outcome.record.training["runs"][0]["history"]  # type: ignore[index,call-overload]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx([one["loss"] for one in history])  # type: ignore[index]
    assert [event.step for event in events.Scalars("validation")] == [1, 2, 3]


def test_one_checkpoint_under_two_paths_is_one_model_and_a_replaced_one_another(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, out = "caduceus-ph-1k", tmp_path / "out"
    flags = ["train", "--task", "gene_finding", "--data", str(data), "--out", str(out), "--no-cache", *FAST]
    for seed, (place, weights) in enumerate([("a/best", 0), ("b/best", 0), ("b/best", 1)]):
        folder = make_tiny(key, tmp_path / place)
        drawn = load_embedder(key, checkpoint=folder, random_init=True, seed=weights).model
        assert drawn is not None
        save_file({name: value.clone() for name, value in drawn.state_dict().items()}, folder / "model.safetensors")
        assert main([*flags, "--model", key, "--checkpoint", str(folder), "--seed", str(seed)]) == 0
    read = [read_record(path) for path in sorted(out.glob("*.json"))]
    shas = {record.config["seed"]: str(record.model["weights_sha256"]) for record in read}
    assert shas[0] == shas[1] != shas[2]
    names = {group.seeds: group.model for group in group_records(read)}
    assert names == {
        (0, 1): f"{key}, own weights best, weights {shas[0][:7]}",
        (2,): f"{key}, own weights best, weights {shas[2][:7]}",
    }
    capsys.readouterr()
    assert main(["compare", *map(str, sorted(out.glob("*.parquet")))]) == 0
    assert f"weights {shas[0][:7]} (seeds 0, 1)" in capsys.readouterr().out
    assert not schema_errors(records(out)[0])


def test_an_own_model_that_computes_something_else_is_another_row(data: Path, tmp_path: Path) -> None:
    code = "import numpy as np\n\nclass Scaled:\n    factor = float({})\n\n    def embed(self, sequences):\n"
    code += "        return [self.factor * np.array([[one == 'A'] for one in each]) for each in sequences]\n"
    read = []
    for seed, (folder, factor) in enumerate([("a", "1"), ("b", "1"), ("b", "3")]):
        path = tmp_path / folder / "scaled.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(code.format(factor))
        config = RunConfig(task="gene_finding", data=str(data), out=tmp_path / "out", epochs=1, seed=seed)
        [cell] = run_grid(config, [str(path)])
        assert cell.record is not None, cell.error
        read.append(cell.record)
    assert [group.seeds for group in group_records(read)] in ([(0, 1), (2,)], [(2,), (0, 1)])


OWN_MODEL = """
from pathlib import Path

import numpy as np


class Scaled:
    def __init__(self):
        self.scale = float(Path(__file__).with_name("scale.txt").read_text())

    def embed(self, sequences):
        rows = [[[self.scale * (base in "CG"), base in "AC"] for base in one] for one in sequences]
        return [np.array(one, np.float32) for one in rows]
"""


def test_a_cell_of_an_own_model_whose_data_file_changed_runs_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "scaled.py", tmp_path / "out"
    model.write_text(OWN_MODEL)
    flags = ["run", "--task", "gene_finding", "--data", str(data), "--out", str(out), *FAST]
    flags += ["--cache", str(tmp_path / "cache"), "--model", str(model)]
    texts = []
    for scale in ("1", "1", "3", "1"):
        (tmp_path / "scale.txt").write_text(scale)
        assert main(flags) == 0
        texts.append(capsys.readouterr().out)
    assert ["was there" in text for text in texts] == [False, True, False, True]
    assert len(records(out)) == 2
    assert len({record["config"]["run_key"] for record in records(out)}) == 2


def test_a_cell_that_a_full_disk_ended_names_the_folders_and_their_space() -> None:
    def full() -> int:
        raise OSError(errno.ENOSPC, "No space left on device")  # without a name, as libraries raise it

    failed = grid._attempt(full)
    assert isinstance(failed, grid._Failed)
    assert re.search(
        rf"No space left on device; free: [0-9.]+ GB for {re.escape(tempfile.gettempdir())}, .*; free some space",
        failed.reason,
    )
