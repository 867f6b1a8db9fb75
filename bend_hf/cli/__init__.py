"""The commands of ``bend-hf``.

In: a command line. Out: calls of the rooms above, and what they return as printed lines and an exit status.
``_main`` is the command ``bend-hf``; every other file declares one command or a few related ones in a tuple
``COMMANDS``. A command parses its flags, calls one function and prints; the work is done in the rooms. To add a
command, add a file; it may import nothing heavy at its top, because ``bend-hf --help`` imports all of them.

>>> COMMANDS.get("tasks").text
'list the tasks'
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from bend_hf.registry import Registry


def _no_flags(parser: argparse.ArgumentParser) -> None:
    """Add no flags."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        key: Name of the command, as typed after ``bend-hf``.
        text: One line for the help.
        run: Does the work and returns the exit status. A ``BendError`` is printed, and its
            ``exit_status`` returned.
        add_flags: Adds the command's flags to its parser.
    """

    key: str
    text: str
    run: Callable[[argparse.Namespace], int]
    add_flags: Callable[[argparse.ArgumentParser], None] = _no_flags


COMMANDS: Registry[Command] = Registry(kind="command", package="bend_hf.cli", attribute="COMMANDS")

__all__ = ["COMMANDS", "Command"]
