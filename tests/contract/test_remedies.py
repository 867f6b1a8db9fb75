"""A message names only flags that the command has which prints it."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import bend_hf
from bend_hf.cli import COMMANDS
from bend_hf.data.genome import Genome
from bend_hf.errors import GenomeError

ROOT = Path(bend_hf.__file__).parent
DATA = ("train", "run", "controls", "embed", "build", "verify", "audit")
TRAIN = ("train", "run", "controls")
# the commands that run the code of a folder or file; the longest match counts
COMMANDS_OF = {
    "": (),
    "data": DATA,
    "data/download.py": ("download",),
    "data/published_files.py": (),
    "data/variants.py": (*DATA, "variants"),
    "embedders": (*TRAIN, "embed", "variants"),
    "embedders/cache": (*TRAIN, "embed"),
    "embedders/cache/manage.py": ("cache",),
    "embedders/convert.py": ("convert",),
    "embedders/layers.py": ("layers",),
    "evaluation": (),
    "publishing": (),
    "publishing/uploads.py": ("push",),
    "publishing/hub.py": ("push",),
    "publishing/publishable.py": ("card", "push"),
    "publishing/results.py": ("card", "push"),
    "publishing/eval_results.py": ("card", "push"),
    "runs": (),
    "runs/embed.py": ("embed",),
    "runs/run.py": TRAIN,
    "runs/train_head.py": TRAIN,
    "training": TRAIN,
    "training/pretraining": ("pretrain",),
    "variants": ("variants",),
}
CHOSEN = {"data/genome.py": {"--out-of-bounds"}}  # named only to those who can choose; see the test below
OTHER = re.compile(r"'(?:bend-hf|hf|accelerate|pip)[^']*'?|torchrun .*")  # a whole command of another program
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")


@cache
def flags_of_command(key: str) -> frozenset[str]:
    parser = argparse.ArgumentParser()
    COMMANDS.get(key).add_flags(parser)
    return frozenset(name for one in _parsers(parser) for action in one._actions for name in action.option_strings)


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _parsers(child)


def messages(path: Path) -> Iterator[str]:
    """The texts of errors that a file raises."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for call in node.exc.args:
                yield " ".join(
                    one.value for one in ast.walk(call) if isinstance(one, ast.Constant) and isinstance(one.value, str)
                )


def commands_of(name: str) -> tuple[str, ...]:
    return COMMANDS_OF[max((place for place in COMMANDS_OF if name.startswith(place)), key=len)]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_an_error_names_only_flags_of_the_commands_that_raise_it(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    any_command = frozenset().union(*(flags_of_command(command.key) for command in COMMANDS))
    for text in messages(path):
        for named in set(FLAG.findall(OTHER.sub("", text))) - CHOSEN.get(name, set()):
            assert named in any_command, f"{text!r} names {named}, which no command has"
            for key in commands_of(name):
                assert named in flags_of_command(key), f"{text!r} names {named}, which bend-hf {key} does not have"


def test_only_those_who_can_choose_are_told_of_out_of_bounds(tmp_path: Path) -> None:
    fasta = tmp_path / "g.fa"
    fasta.write_text(">chr1\nACGT\n")
    with pytest.raises(GenomeError, match="belongs to this assembly, or take the line out"):
        Genome(fasta).fetch(["chr1"], [2], [6])
    with pytest.raises(GenomeError, match="pass --out-of-bounds pad"):
        Genome(fasta).fetch(["chr1"], [2], [6], out_of_bounds="error")
