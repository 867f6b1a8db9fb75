"""What every command of ``bend-hf`` must hold, from its declaration alone."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys

import pytest

from bend_hf.cli import COMMANDS, Command, _main
from bend_hf.cli._main import main
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
    assert "usage: bend-hf" in capsys.readouterr().err


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


def test_an_unknown_command_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["trian"])
    assert stop.value.code == 2
    assert "invalid choice: 'trian'" in capsys.readouterr().err


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
    parse = _main._parser().parse_args
    for words in (["gene_finding", "all"], ["--task", "gene_finding", "all"], ["gene_finding", "--task", "all"]):
        assert parse([command, *words]).task == ["gene_finding", "all"]
    assert "task" not in parse([command])


def test_all_stands_for_every_task() -> None:
    assert select_tasks(["all"]) == list(TASKS)
    assert select_tasks(["gene_finding", "all"])[0].key == "gene_finding"
