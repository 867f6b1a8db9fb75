"""The exit status of every command: 2 for a wrong flag or configuration, 1 for bad data or a failed run."""

from __future__ import annotations

import argparse
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bend_hf import errors
from bend_hf.cli import COMMANDS
from bend_hf.cli._main import EXIT_STATUSES, main
from bend_hf.config import RunConfig, number_between
from bend_hf.data.builder import GenerationError
from bend_hf.embedders.cache.writer import UnstorableError
from bend_hf.errors import BendError, ConfigError
from tests.command_line import parse_run

# what a command needs besides the flag that is tried; every run stops before it reads one of these
NEEDED = {
    "variants": ["v.vcf", "--genome", "g.fa"],
    "submit run": ["--task", "cpg_methylation", "--on", "slurm"],
    "submit embed": ["--task", "cpg_methylation", "--on", "slurm"],
    "submit report": ["results", "--on", "slurm"],
    "submit variants": ["v.vcf", "--genome", "g.fa", "--on", "slurm"],
    "pretrain": ["--model", "convnet", "--genome", "g.fa", "--out", "o"],
    "compare": ["a.parquet", "b.parquet"],
    "cache prune": [],
}


def number_flags() -> list[tuple[str, str, type]]:
    """Every flag of every command that takes a number, with its kind."""
    found = []
    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        command.add_flags(parser)
        for words, one in _parsers(parser, command.key):
            for action in one._actions:
                kind = {"int": int, "float": float}.get(getattr(action.type, "__name__", ""))
                if kind is not None:
                    found.append((words, action.option_strings[-1], kind))
    return sorted(set(found), key=str)


def not_finite() -> list[tuple[str, str, str]]:
    """A command, flag and value for each number that is no finite one; int() itself refuses them."""
    values = {int: ["nan"], float: ["nan", "inf", "-inf"]}
    return [
        (command, name, value)
        for command, name, kind in number_flags()
        if command not in ("run", "controls")  # their flags are those of train
        for value in values[kind]
    ]


def all_errors() -> list[type[BendError]]:
    """Every class of error of the package, those of single modules included."""
    waiting, found = [BendError], []
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    assert UnstorableError in found  # of a module that is imported here
    return sorted({kind for kind in found if kind is not GenerationError}, key=lambda kind: kind.__name__)


def _parsers(parser: argparse.ArgumentParser, words: str) -> list[tuple[str, argparse.ArgumentParser]]:
    """The parser of a command and those of its actions, each with the words that lead to it."""
    found = [(words, parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [one for name, child in action.choices.items() for one in _parsers(child, f"{words} {name}")]
    return found


def status_of(argv: list[str]) -> int:
    try:
        return main(argv)
    except SystemExit as stop:  # of argparse
        return int(stop.code or 0)


@pytest.mark.parametrize(("command", "name", "value"), not_finite())
def test_a_number_that_is_not_finite_is_refused_by_its_flag(
    command: str, name: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of([*command.split(), *NEEDED.get(command, ["--task", "cpg_methylation"]), f"{name}={value}"]) == 2
    said = capsys.readouterr().err
    assert name in said
    assert value in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "name", [name for command, name, kind in number_flags() if command == "train" and kind is float]
)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "[0.1, nan]"])
def test_a_number_that_is_not_finite_is_refused_in_a_file(name: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f"{name[2:]} = {value}\n")
    with pytest.raises(ConfigError, match=name[2:]):
        parse_run(["--config", str(file), "--task", "cpg_methylation"])


@given(value=st.floats(allow_nan=True, allow_infinity=True))
def test_a_weight_decay_is_taken_if_and_only_if_it_is_finite_and_not_negative(value: float) -> None:
    takes = math.isfinite(value) and value >= 0
    try:
        assert RunConfig(task=("a",), weight_decay=value).weight_decay == value
    except ConfigError:
        assert not takes
    else:
        assert takes


@given(value=st.floats(allow_nan=True, allow_infinity=True))
def test_a_bounded_flag_takes_exactly_its_range(value: float) -> None:
    read = number_between(0.25, 4, kind=float)
    try:
        assert read(repr(value)) == value
    except argparse.ArgumentTypeError:
        assert not 0.25 <= value <= 4
    else:
        assert 0.25 <= value <= 4


def test_only_errors_of_flags_and_names_have_the_status_2() -> None:
    kinds: list[Any] = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, BendError)]
    assert sorted(kind.__name__ for kind in kinds if kind.exit_status == 2) == ["ConfigError", "RegistryError"]
    assert {kind.exit_status for kind in kinds} == {1, 2}


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_an_error_passes_from_a_worker_to_its_caller(kind: type[BendError]) -> None:
    back = pickle.loads(pickle.dumps(kind("a.bed, line 3: no end")))
    assert type(back) is kind
    assert str(back) == "a.bed, line 3: no end"


@pytest.mark.parametrize(("kind", "status"), [(errors.ConfigError, 2), (errors.LabelError, 1)])
def test_an_error_that_a_library_wrapped_ends_a_command_in_one_line(
    kind: type[BendError], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrapped(parsed: object) -> int:
        try:
            try:
                raise kind("a.bed, line 3: no end")
            except BendError as error:
                raise RuntimeError("An error occurred while generating the dataset") from error
        except RuntimeError as error:
            raise ValueError("a worker failed") from error

    monkeypatch.setitem(COMMANDS.get("tasks").__dict__, "run", wrapped)
    assert main(["tasks"]) == status
    assert capsys.readouterr().err == "error: a.bed, line 3: no end\n"


def test_a_defect_that_an_error_only_came_before_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(parsed: object) -> int:
        try:
            raise errors.LabelError("a.bed, line 3: no end")
        except BendError:
            raise ZeroDivisionError  # noqa: B904  without a cause

    monkeypatch.setitem(COMMANDS.get("tasks").__dict__, "run", fails)
    with pytest.raises(ZeroDivisionError):
        main(["tasks"])


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["train", "--task", "cpg_methylatoin"], 2),
        (["train", "--task", "cpg_methylation", "--model", "onehott"], 2),
        (["train", "--config", "missing.toml"], 2),
        (["controls", "--task", "cpg_methylation", "--data", "sample", "--only", "kmerr"], 2),
        (["run", "--task", "cpg_methylation", "--model", "onehot", "onehott"], 2),
        (["embed", "--task", "cpg_methylation", "--shards", "x"], 2),
        (["variants", "v.vcf"], 2),
        (["compare", "a.parquet", "b.parquet", "--level", "1.5"], 2),
        (["push", "card", "--create-pr"], 2),
        (["card", "records", "--dataset", "x"], 1),
        (["report", "missing"], 1),
        (["compare", "a.parquet", "b.parquet"], 1),
        (["variants", "missing.vcf", "--genome", "missing.fa"], 1),
        (["train", "--task", "cpg_methylation", "--data", "empty", "--model", "onehot"], 1),
        (["build", "cpg_methylation", "--data", "empty"], 1),
    ],
)
def test_the_exit_status_says_whether_the_flags_or_the_data_are_wrong(
    argv: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert status_of(argv) == status
    assert "error: " in capsys.readouterr().err


def test_an_interrupted_command_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bend_hf import pretrain, train

    def interrupt(parsed: object) -> int:
        raise KeyboardInterrupt

    for key, entry in (("train", train.main), ("pretrain", pretrain.main)):
        monkeypatch.setitem(COMMANDS.get(key).__dict__, "run", interrupt)
        assert entry([]) == main([key]) == 130
        assert capsys.readouterr().err.count("interrupted; finished work is kept") == 2


@pytest.mark.parametrize("argv", [[], ["train"], ["compare"]])
def test_the_help_lists_the_exit_statuses(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*argv, "--help"])
    assert EXIT_STATUSES in " ".join(capsys.readouterr().out.split())
