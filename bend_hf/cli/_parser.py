"""The parser of ``bend-hf``: short usage, an example, and errors that name the nearest flag, command or value.

>>> parser = Parser(prog="bend-hf train")
>>> _ = parser.add_argument("--model")
>>> parser.nearest_flag("--Modle")
'--model'
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from bend_hf.errors import did_you_mean, nearest
from bend_hf.tables import printable

# What flags are called in BEND's configuration and in scripts that train with transformers.
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "--batch": "--batch-size",
    "--embedder": "--model",
    "--lr": "--learning-rate",
    "--model-name-or-path": "--model",
    "--num-train-epochs": "--epochs",
    "--output": "--out",
    "--output-dir": "--out",
    "--per-device-train-batch-size": "--batch-size",
}
_OVERRIDE: Final = re.compile(r"[A-Za-z_][\w.@+-]*=(?!.*\.py(:|$)).*")  # of Hydra; a task may be a file of Python
_FLAGS: Final = argparse.Action(option_strings=(), dest="[flags]")  # stands for all flags in the usage


class Parser(argparse.ArgumentParser):
    """A parser of one command, or of all of them.

    Args:
        example: A command to type, which the help shows.
        settings: What ``argparse.ArgumentParser`` takes.
    """

    def __init__(self, *, example: str = "", **settings: Any) -> None:  # noqa: ANN401 as argparse declares them
        super().__init__(**{"allow_abbrev": False, "formatter_class": _Help, **settings})
        if example:
            self.epilog = f"example{'s' if chr(10) in example else ''}:\n  {example}\n\n{self.epilog or ''}"

    def parse_known_args(  # type: ignore[override]  # typeshed overloads it for namespaces of other types
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments. Words after a flag still belong to the command; an unknown flag is an error here.

        Each parser refuses what it does not know itself, so that the error names the flags of the command that was
        typed and not those of ``bend-hf``.
        """
        arguments = list(sys.argv[1:] if args is None else args)
        parsed, unknown = super().parse_known_args(arguments, namespace)
        if not unknown:
            self._refuse_overrides(parsed)
            return parsed, []
        flag = next((one for one in unknown if one.startswith("-")), None)
        if flag is not None:
            self._refuse_flag(flag.partition("=")[0])
        words = next((one for one in self._actions if not one.option_strings and one.nargs == "*"), None)
        if words is None:
            self.error(f"{unknown[0]!r} is one argument too many")
        self._get_values(words, unknown)  # checks them
        setattr(parsed, words.dest, [*getattr(parsed, words.dest), *self._get_values(words, unknown)])
        self._refuse_overrides(parsed)
        return parsed, []

    def nearest_flag(self, name: str) -> str | None:
        """Return the flag that is most like a name, or that has another name elsewhere; None if none is."""
        flags = [flag for one in self._actions for flag in one.option_strings]
        other = _OTHER_NAMES.get(name.replace("_", "-"))
        return other if other in flags else nearest(name, flags)

    def _refuse_flag(self, name: str) -> NoReturn:
        near = self.nearest_flag(name)
        has_commands = any(isinstance(one, argparse._SubParsersAction) for one in self._actions)
        advice = f"did you mean {near}?" if near else "put flags behind the command" if has_commands else ""
        self.error(f"unknown flag {name}" + (f"; {advice}" if advice else ""))

    def _refuse_overrides(self, parsed: argparse.Namespace) -> None:
        """End the process if a word is an override of Hydra, as BEND's scripts take them."""
        for one in self._actions:
            words = getattr(parsed, one.dest, None) if not one.option_strings else None
            for word in words if isinstance(words, list) else ():
                if isinstance(word, str) and _OVERRIDE.fullmatch(word) and not Path(word).exists():
                    name, _, value = word.partition("=")
                    flag = self.nearest_flag(f"--{name.rpartition('.')[2]}")
                    advice = f"did you mean {flag} {value}?" if flag else "give a flag"
                    self.error(f"{word!r} is an override of Hydra, which bend-hf does not read; {advice}")

    def error(self, message: str) -> NoReturn:
        """Print one line and end the process with status 2."""
        self.exit(2, f"error: {printable(message)} (see '{self.prog} --help')\n")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is None or value in action.choices:
            return
        is_command = isinstance(action, argparse._SubParsersAction)
        kind = str(action.metavar).lower() if is_command else "value"
        known = [str(one) for one in action.choices]
        raise argparse.ArgumentError(
            None if is_command else action, f"unknown {kind} {value!r}; {did_you_mean(str(value), known)}"
        )


class _Help(argparse.HelpFormatter):
    """Lists flags under their groups and not in the usage; keeps the lines of the text below."""

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None = None,
    ) -> None:
        """Add the usage: what a command needs, and that it has flags."""
        needed = [one for one in actions if one.required or not one.option_strings]
        names_commands = any(isinstance(one, argparse._SubParsersAction) for one in needed)
        in_help = prefix is None and not names_commands
        super().add_usage(usage, [*needed, *([_FLAGS] if in_help else [])], groups, prefix)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks = text.split("\n\n")
        return "\n\n".join(
            block if "\n" in block else super(_Help, self)._fill_text(block, width, indent) for block in blocks
        )
