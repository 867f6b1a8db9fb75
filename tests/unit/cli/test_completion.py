"""Completion scripts: what bash offers for a line, and that the other shells read theirs."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bend_hf.cli import COMMANDS, Command, _main
from bend_hf.cli._main import main
from bend_hf.cli.completion import SHELLS, bash, places
from bend_hf.config import flag_group
from bend_hf.embedders import MODELS
from bend_hf.runs.controls import CONTROLS
from bend_hf.tasks import TASKS

BASH = shutil.which("bash")


def offered(script: Path, line: str) -> list[str]:
    """What bash completes the last word of a line to."""
    words = line.split(" ")
    typed = " ".join(shlex.quote(word) for word in words)
    complete = f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _bend_hf"
    call = f"source {script}; {complete}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run([str(BASH), "--norc", "-euc", call], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "bend-hf.bash"
    path.write_text(bash(list(places(_main.command_parser()))))
    return path


def known(prefix: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(prefix)]


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bend-hf ", COMMANDS.names()),
        ("bend-hf tr", ["train"]),
        ("bend-hf train --mode", ["--model", "--model-dtype"]),
        ("bend-hf train --model dnab", known("dnab", MODELS.names())),
        ("bend-hf train --model onehot gene", ["gene_finding"]),
        ("bend-hf train --random-init gene", ["gene_finding"]),
        ("bend-hf train gene_finding his", ["histone_modification"]),
        ("bend-hf train --task gene_finding cpg", ["cpg_methylation"]),
        ("bend-hf train --task gene_finding --tune ", ["head", "full", "lora"]),
        ("bend-hf run --model onehot dnabert2 gro", ["grover"]),
        ("bend-hf train --head ", ["basset", "cnn", "linear", "resnet"]),
        ("bend-hf train --metric au", ["auprc", "auroc"]),
        ("bend-hf embed --splits val", ["validation"]),
        ("bend-hf controls --only ", CONTROLS.names()),
        ("bend-hf controls --control mot", ["motifs", "motifs+kmers"]),
        ("bend-hf cache ", ["list", "verify", "prune", "export"]),
        ("bend-hf cache prune --un", ["--unfinished"]),
        ("bend-hf cache list --un", []),
        ("bend-hf verify --bu", ["--built"]),
        ("bend-hf pretrain --model conv", ["convnet"]),
        ("bend-hf completion ", list(SHELLS)),
        ("bend-hf train --out ", []),
        ("bend-hf nonsense --", []),
    ],
)
def test_bash_completes_commands_flags_and_names(script: Path, line: str, words: list[str]) -> None:
    assert offered(script, line) == words


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_the_printed_script_is_loaded_as_the_help_says(capsys: pytest.CaptureFixture[str]) -> None:
    line = 'eval "$($0 -m bend_hf completion bash)"; complete -p bend-hf'
    done = subprocess.run(
        [str(BASH), "--norc", "-c", line, sys.executable], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "complete -o default -F _bend_hf bend-hf\n"


@pytest.mark.parametrize("shell", ["fish", "zsh"])
def test_other_shells_read_their_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in (*COMMANDS.names(), *TASKS.names(), "cache-dtype", "unfinished"))
    installed = shutil.which(shell)
    if installed is None:
        pytest.skip(f"{shell} is not installed; only the words of its script were checked")
    path = tmp_path / "script"
    path.write_text(text)
    subprocess.run([installed, "-n", str(path)], check=True, timeout=300)


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_a_new_command_and_its_flags_are_completed_from_their_declaration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_flags(parser: argparse.ArgumentParser) -> None:
        flag_group(parser, "data").add_argument("--assembly", choices=["GRCh37", "GRCh38", "it's"], help="it's one")

    run: Callable[[argparse.Namespace], int] = lambda parsed: 0  # noqa: E731
    monkeypatch.setitem(COMMANDS._declared, "lift", Command(key="lift", text="lift over", run=run, add_flags=add_flags))
    path = tmp_path / "bend-hf.bash"
    path.write_text(bash(list(places(_main.command_parser()))))
    assert offered(path, "bend-hf lif") == ["lift"]
    assert offered(path, "bend-hf lift --a") == ["--assembly"]
    assert offered(path, "bend-hf lift --assembly GRCh3") == ["GRCh37", "GRCh38"]
