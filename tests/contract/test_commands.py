"""What every command of ``bend-hf`` must hold, from its declaration alone."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from bend_hf.cli import COMMANDS, Command, CommandRegistry, _main
from bend_hf.cli._main import main
from bend_hf.config import Group, RunConfig, add_flags, flag
from bend_hf.tasks import TASKS, select_tasks

HEAVY = ("torch", "datasets", "transformers", "evaluate", "accelerate", "pandas", "sklearn", "matplotlib")
KEYS = COMMANDS.names()


def check_command(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """Check the help of one command and its answer to an unknown flag."""
    check_help_text(command.text)
    parser = argparse.ArgumentParser(prog=command.key)
    command.add_flags(parser)
    check_flags(parser)
    with pytest.raises(SystemExit) as stop:
        main([command.key, "--help"])
    assert stop.value.code == 0
    assert f"usage: bend-hf {command.key}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main([command.key, "--no-such-flag"])
    assert stop.value.code == 2
    assert f"(see 'bend-hf {command.key} --help')" in capsys.readouterr().err


def check_help_text(text: str) -> None:
    """Check that a text is one line that starts like a clause: help lists add their own capitals and periods."""
    assert text
    assert text == text.strip()
    assert "\n" not in text
    assert not text.endswith(".")


def check_flags(parser: argparse.ArgumentParser) -> None:
    """Check that every flag and subcommand of a parser has a help text."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                check_flags(subparser)
            continue
        assert action.help, f"{'/'.join(action.option_strings) or action.dest} has no help text"
        check_help_text(action.help)


@pytest.mark.parametrize("key", KEYS)
def test_a_command_has_help_for_itself_and_its_flags(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_command(COMMANDS.get(key), capsys)


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from bend_hf.cli._main import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        f"loaded = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "print('loaded:', *loaded)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
    for command in COMMANDS:
        assert re.search(rf"^    {command.key}\b", done.stdout, re.MULTILINE), command.key


def test_no_command_prints_the_help_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_a_reader_that_stops_early_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m bend_hf models | head -n 1"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "run", "controls", "embed", "build", "verify"])
def test_tasks_are_plain_words_or_flags(command: str) -> None:
    parse = _main.command_parser().parse_args
    for words in (["gene_finding", "all"], ["--task", "gene_finding", "all"], ["gene_finding", "--task", "all"]):
        assert parse([command, *words]).task == ["gene_finding", "all"]
    assert "task" not in parse([command])


def test_all_stands_for_every_task() -> None:
    assert select_tasks(["all"]) == list(TASKS)
    assert select_tasks(["gene_finding", "all"])[0].key == "gene_finding"


def _parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    children = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    return [parser, *(two for one in children for child in one.choices.values() for two in _parsers(child))]


@pytest.mark.parametrize("key", KEYS)
def test_every_flag_of_a_command_stands_in_a_named_group(key: str) -> None:
    (commands,) = (one for one in _main.command_parser()._actions if isinstance(one, argparse._SubParsersAction))
    for parser in _parsers(commands.choices[key]):
        (options,) = (group for group in parser._action_groups if group.title == "options")
        assert {action.dest for action in options._group_actions} <= {"help", "config"}, key
        titles = [group.title for group in parser._action_groups if group.title in get_args(Group)]
        assert titles in ([], list(get_args(Group))), "the groups stand in one order everywhere"


@pytest.mark.parametrize("key", KEYS)
def test_the_help_has_an_example_that_parses_and_fits_80_columns(
    key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([key, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    example = lines[lines.index("example:") + 1].strip().removeprefix('eval "$(').removesuffix(')"')
    assert example.startswith(f"bend-hf {key}")
    assert _main.command_parser().parse_args(shlex.split(example)[1:]).command == key


@pytest.mark.parametrize("key", KEYS)
def test_a_command_that_starts_alone_has_the_help_and_the_errors_that_it_has_among_all(key: str) -> None:
    alone = CommandRegistry(kind="command", package="bend_hf.cli", attribute="COMMANDS").of_file(key)
    if alone is None:
        assert COMMANDS.get(key) is not None, "declared in a file of another name"
        return
    assert alone is COMMANDS.get(key)
    (among_all,), (one,) = (
        [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        for parser in (_main.command_parser(), _main.command_parser(alone))
    )
    assert list(one.choices) == [key]
    assert one.choices[key].format_help() == among_all.choices[key].format_help()
    assert one.choices[key].prog == among_all.choices[key].prog == f"bend-hf {key}"


@pytest.mark.parametrize("word", ["--help", "_main", "no-such-command", "trian", "../train", "train.x", "", "tasks"])
def test_other_words_are_no_command_with_a_file_of_its_name(word: str) -> None:
    assert CommandRegistry(kind="command", package="bend_hf.cli", attribute="COMMANDS").of_file(word) is None


def test_a_flag_that_a_plug_in_declares_stands_in_the_group_of_its_declaration() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Wider(RunConfig):
        dropout: float = flag(0.0, "a setting of the head", group="head")
        log_every: int = flag(10, "how often to log", "nothing")
        adapter: str = flag("none", "a setting of the model", concerns="model")

    parser = argparse.ArgumentParser()
    add_flags(parser, Wider)
    place = {action.dest: group.title for group in parser._action_groups for action in group._group_actions}
    assert (place["dropout"], place["log_every"], place["adapter"]) == ("head", "output", "model")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["TRAIN"], "unknown command 'TRAIN'; did you mean 'train'?"),
        (["cache", "Prune"], "unknown action 'Prune'; did you mean 'prune'?"),
        (["train", "gene_finding", "--modle", "x"], "unknown flag --modle; did you mean --model?"),
        (["train", "gene_finding", "--embedder", "x"], "unknown flag --embedder; did you mean --model?"),
        (["train", "gene_finding", "--output_dir", "x"], "unknown flag --output_dir; did you mean --out?"),
        (["embed", "task=gene_finding"], "'task=gene_finding' is an override of Hydra"),
        (["train", "gene_finding", "params.lr=1"], "which bend-hf does not read; did you mean --learning-rate 1?"),
        (["train", "--Model_Dtype=float16"], "unknown flag --Model_Dtype; did you mean --model-dtype?"),
        (["cache", "prune", "--older", "3"], "unknown flag --older; did you mean --older-than?"),
        (["-q", "train"], "unknown flag -q; put flags behind the command"),
        (["report", "a", "--zzzz"], "unknown flag --zzzz (see 'bend-hf report --help')"),
        (["train", "--tune", "LORA"], "argument --tune: unknown value 'LORA'; did you mean 'lora'?"),
        (["train", "--protocol", "bend_hf_1"], "unknown value 'bend_hf_1'; did you mean 'bend-hf-1'?"),
        (["push", "Cards"], "unknown value 'Cards'; did you mean 'card'?"),
        (["train", "cpg"], "unknown task 'cpg'; did you mean 'cpg_methylation'?"),
        (["train", "variant"], "unknown task 'variant'; did you mean 'variant_effects'?"),
        (["train", "Gene-Finding"], "unknown task 'Gene-Finding'; did you mean 'gene_finding'?"),
        (["run", "gene_finding", "--model", "BendMini"], "no such key, folder or file; did you mean 'bend-mini'?"),
        (["train", "gene_finding", "--data", "sample", "--head", "CCN"], "unknown head 'CCN'; did you mean 'cnn'?"),
        (["train", "gene_finding", "--data", "sample", "--metric", "MC_C"], "did you mean 'mcc'?"),
        (["embed", "cpg_methylation", "--data", "sample", "--splits", "Trian"], "did you mean 'train'?"),
        (["controls", "cpg_methylation", "--data", "sample", "--only", "One-Hot"], "did you mean 'onehot'?"),
        (["train", "cpg_methylation", "--data", "sample", "--tracker", "TensorBord"], "did you mean 'tensorboard'?"),
        (["pretrain", "--model", "Conv-Net", "--genome", "g", "--out", "o"], "did you mean 'convnet'?"),
        (["push", "metric", "M-C-C", "--namespace", "me", "--dry-run"], "did you mean 'mcc'?"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_one(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(argv)
    except SystemExit as stop:
        status = stop.code
    err = capsys.readouterr().err
    assert (status, err.count("error: ")) == (2, 1)
    assert said in err
    assert "usage:" not in err


@pytest.mark.parametrize("line", _main._FIRST_COMMANDS)
def test_the_first_commands_in_the_help_parse(line: str) -> None:
    assert f"  {line}\n" in _main.command_parser().format_help()
    words = shlex.split(line)[1:]
    assert _main.command_parser().parse_args(words).command == words[0]


def test_a_folder_with_an_equals_sign_is_no_override(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "seed=1"
    folder.mkdir()
    main(["verify", str(folder)])
    assert "Hydra" not in capsys.readouterr().err


def test_unknown_data_are_answered_with_the_nearest_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "cpg_methylation", "--data", "Sample"]) == 1
    assert "--data 'Sample' is not a folder; did you mean 'sample'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "run", "controls", "embed", "build", "verify"])
def test_tasks_may_stand_behind_and_between_flags(command: str) -> None:
    parse = _main.command_parser().parse_args
    argv = [command, "gene_finding", "--data", "sample", "cpg_methylation", "--protocol", "bend-hf-1", "all"]
    assert parse(argv).task == ["gene_finding", "cpg_methylation", "all"]
    assert parse([command, "--data", "sample", "all"]).task == ["all"]


NAMES_A_MODEL = {"audit", "card", "convert", "push"}  # whose --model opens no network


@pytest.mark.parametrize("key", KEYS)
def test_every_command_that_opens_a_model_lets_choose_device_batch_and_compilation(key: str) -> None:
    (commands,) = (one for one in _main.command_parser()._actions if isinstance(one, argparse._SubParsersAction))
    for parser in _parsers(commands.choices[key]):
        flags = {action.dest for action in parser._actions}
        if not flags & {"model", "head"} or key in NAMES_A_MODEL:
            assert not flags & {"device", "compile"}, parser.prog
            continue
        batch = "batch_windows" if key == "pretrain" else "batch_tokens"
        assert {"device", "compile", batch} <= flags, parser.prog
        # the dtype of a trained head is that of its training, and the demo is one comparison at the default
        if key not in ("predict", "demo", "pretrain"):
            assert {"model_dtype", "tf32"} <= flags, parser.prog
