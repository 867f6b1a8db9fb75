"""The commands of ``bend-hf``.

In: a command line. Out: calls of the rooms above, and what they return as printed lines and an exit status.
``_main`` is the command ``bend-hf``; every other file declares one command or a few related ones in a tuple
``COMMANDS``. A command parses its flags, calls one function and prints; the work is done in the rooms. To add a
command, add a file; it may import nothing heavy at its top, because ``bend-hf --help`` imports all of them. A command
that has the name of its file starts without the others.

>>> COMMANDS.get("tasks").text
'list the tasks'
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from bend_hf.config import Condition, check_conditions
from bend_hf.registry import Registry


def _no_flags(parser: argparse.ArgumentParser) -> None:
    """Add no flags."""


def actions_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the flags and words of a parser and of its subcommands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from actions_of(subparser)
        yield action


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        key: Name of the command, as typed after ``bend-hf``.
        text: One line for the help.
        run: Does the work and returns the exit status. A ``BendError`` is printed, and its
            ``exit_status`` returned.
        add_flags: Adds the command's flags to its parser, each to the group that ``config.flag_group`` returns.
        example: A command to type, which the help shows.
        has_records: Whether the command prints its results with ``_output.show``, so that it has the flag ``--json``.
        conditions: When flags have an effect, for flags that are not those of a configuration. It is checked before
            the command runs.
    """

    key: str
    text: str
    run: Callable[[argparse.Namespace], int]
    add_flags: Callable[[argparse.ArgumentParser], None] = _no_flags
    example: str = ""
    has_records: bool = False
    conditions: tuple[Condition, ...] = ()

    def check(self, parsed: argparse.Namespace) -> None:
        """Check that the flags that were given have an effect.

        Raises:
            ConfigError: One has none.
        """
        if not self.conditions:
            return
        parser = argparse.ArgumentParser()
        self.add_flags(parser)
        actions = {action.dest: action for action in actions_of(parser)}
        shown = {
            dest: action.option_strings[0] if action.option_strings else str(action.metavar or dest)
            for dest, action in actions.items()
        }
        check_conditions(parsed, {dest: action.default for dest, action in actions.items()}, self.conditions, shown)


class CommandRegistry(Registry[Command]):
    """The commands."""

    def of_file(self, name: str) -> Command | None:
        """Return the command whose file has its name, or None, without importing the other files.

        Args:
            name: Any word of a command line.
        """
        if "_declared" in vars(self):
            return self._declared.get(name)
        module = f"{self.package}.{name}"
        if not name.isidentifier() or name.startswith("_") or importlib.util.find_spec(module) is None:
            return None
        declared: tuple[Command, ...] = getattr(importlib.import_module(module), self.attribute, ())
        return next((one for one in declared if one.key == name), None)


COMMANDS: Final = CommandRegistry(kind="command", package="bend_hf.cli", attribute="COMMANDS")

__all__ = ["COMMANDS", "Command"]
