"""The commands of ``bend-hf``, a file each; a module of this package with a tuple ``COMMANDS`` adds to them.

>>> COMMANDS.get("tasks").text
'list the tasks'

What a command declares.

>>> Command(key="hello", text="say hello", run=lambda parsed: 0).key
'hello'
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from bend_hf.registry import Registry


def _no_flags(parser: argparse.ArgumentParser) -> None:
    """For commands that take no flags."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Importing its module must load nothing heavy: ``bend-hf --help`` imports all of them.

    Attributes:
        key: What is typed behind ``bend-hf``.
        text: One line for the help.
        run: Does the work and returns the exit status; a ``BendError`` is printed and becomes 1.
        add_flags: Gives the command's parser its flags.
    """

    key: str
    text: str
    run: Callable[[argparse.Namespace], int]
    add_flags: Callable[[argparse.ArgumentParser], None] = _no_flags


COMMANDS: Registry[Command] = Registry(kind="command", package="bend_hf.cli", attribute="COMMANDS")

__all__ = ["COMMANDS", "Command"]
