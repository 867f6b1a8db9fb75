"""``bend-hf completion``: what a shell needs to complete commands, flags and names.

    eval "$(bend-hf completion bash)"        # in ~/.bashrc
    eval "$(bend-hf completion zsh)"         # in ~/.zshrc
    bend-hf completion fish | source         # in ~/.config/fish/config.fish

The scripts are generated from the declarations of commands, flags, tasks, models and heads. They start no Python; load
them again after a package with plug-ins was installed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bend_hf.cli import Command

SHELLS: Final = ("bash", "fish", "zsh")
_PLAIN: Final = re.compile(r"[\w./:+-]+", re.ASCII)  # other words would need quotes


@dataclass(frozen=True, kw_only=True)
class Place:
    """A command, or an action of it.

    Attributes:
        name: As typed after ``bend-hf``, such as ``train`` or ``cache list``; empty for ``bend-hf`` itself.
        text: What the help says of it.
        flags: Its flags.
        words: What may stand there without a flag: commands, actions, or names such as tasks.
    """

    name: str
    text: str
    flags: Sequence[Flag]
    words: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag.

    Attributes:
        names: Its spellings.
        text: Its help.
        takes: ``none`` if it takes no value, ``one`` or ``many``.
        words: The values that are known.
    """

    names: Sequence[str]
    text: str
    takes: str
    words: Sequence[str]


def names_of() -> Mapping[str, Callable[[], Iterable[str]]]:
    """Return what lists the names that a flag takes, by the field of the flag; other flags take files or free text."""
    from bend_hf.embedders import MODELS
    from bend_hf.evaluation.metrics import metric_names
    from bend_hf.evaluation.uncertainty.clusters import CLUSTERS
    from bend_hf.runs.controls import CONTROLS
    from bend_hf.tasks import ALL, task_names
    from bend_hf.training.heads import BASELINES, HEADS
    from bend_hf.training.pretraining.families import FAMILIES
    from bend_hf.training.trackers import TRACKERS

    return {
        "task": lambda: [*task_names(), ALL],
        "tasks": task_names,
        "model": lambda: [*MODELS.names(), *BASELINES],
        "pretrain model": FAMILIES.names,
        "head": HEADS.names,
        "metric": metric_names,
        "only": CONTROLS.names,
        "splits": lambda: ("train", "validation", "test"),
        "data": lambda: ("sample", "hub"),
        "tracker": lambda: TRACKERS,
        "clusters": lambda: CLUSTERS,
    }


def places(parser: argparse.ArgumentParser, name: str = "", text: str = "") -> Iterator[Place]:
    """List a parser and those of its commands."""
    known = names_of()

    def words(action: argparse.Action) -> list[str]:
        names = known.get(f"{name} {action.dest}", known.get(action.dest, tuple))()
        return [one for one in map(str, action.choices or names) if _PLAIN.fullmatch(one)]

    flags = [
        Flag(
            names=one.option_strings,
            text=(one.help or "").replace("%%", "%"),
            takes="none" if one.nargs == 0 else "many" if one.nargs in ("*", "+") else "one",
            words=words(one),
        )
        for one in parser._actions
        if one.option_strings
    ]
    positional = [one for one in parser._actions if not one.option_strings]
    yield Place(name=name, text=text, flags=flags, words=[word for one in positional for word in words(one)])
    for one in positional:
        if isinstance(one, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in one._choices_actions}
            for key, child in one.choices.items():
                yield from places(child, f"{name} {key}".strip(), texts.get(key, ""))


_BASH: Final = """\
_bend_hf_words() {{
    case "$1" in
{words}
    esac
}}

_bend_hf() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" place="" flag="" word="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]}}"
        if [[ $i == 1 ]]; then
            place="$word"
        elif [[ $i == 2 && " {actions} " == *" $place/$word "* ]]; then
            place="$place $word"
        elif [[ "$word" == -* ]]; then
            case "$place $word" in
                {takes_none}) flag="" ;;
                *) flag="$word" ;;
            esac
        else
            case "$place $flag" in
                {takes_many}) ;;
                *) flag="" ;;
            esac
        fi
    done
    [[ "$current" == -* ]] && flag="-"
    COMPREPLY=($(compgen -W "$(_bend_hf_words "$place${{flag:+ $flag}}")" -- "$current")) || :
}}

complete -o default -F _bend_hf bend-hf
"""

_ZSH: Final = """\
(( $+functions[compdef] )) || { autoload -U compinit && compinit; }
autoload -U bashcompinit && bashcompinit
"""

_FISH: Final = """\
function __bend_hf_at
    set -l words (commandline -opc)[2..-1]
    set -l wanted (count $argv)
    test (count $words) -ge $wanted; and test "$words[1..$wanted]" = "$argv"
end
"""


def bash(found: Sequence[Place]) -> str:
    """Return the script for bash."""
    by_place = {one.name: one.words for one in found if one.words}
    by_place |= {f"{one.name} -": [name for flag in one.flags for name in flag.names] for one in found if one.name}
    by_place |= {
        f"{one.name} {name}": flag.words for one in found for flag in one.flags for name in flag.names if flag.words
    }

    def taking(kind: str) -> str:
        return "|".join(
            f"'{one.name} {name}'" for one in found for flag in one.flags if flag.takes == kind for name in flag.names
        )

    return _BASH.format(
        words="\n".join(f"        '{place}') echo '{' '.join(words)}' ;;" for place, words in by_place.items()),
        actions=" ".join(one.name.replace(" ", "/") for one in found if " " in one.name),
        takes_none=taking("none"),
        takes_many=taking("many"),
    )


def fish(found: Sequence[Place]) -> str:
    """Return the script for fish."""
    parents = {one.name.rpartition(" ")[0] for one in found if one.name}
    lines = [_FISH]
    for one in found:
        parent = one.name.rpartition(" ")[0]
        at = f"-n '__bend_hf_at {one.name}'" if one.name else ""
        if one.name:
            actions = " ".join(two.name.rpartition(" ")[2] for two in found if two.name.rpartition(" ")[0] == parent)
            before = (
                f"__bend_hf_at {parent}; and not __fish_seen_subcommand_from {actions}"
                if parent
                else "__fish_use_subcommand"
            )
            lines.append(f"complete -c bend-hf -f -n '{before}' -a {one.name.split()[-1]} -d {_quoted(one.text)}")
        elif one.name in parents:
            lines.append("complete -c bend-hf -f -n __fish_use_subcommand")
        if one.words and one.name and one.name not in parents:
            lines.append(f"complete -c bend-hf {at} -a {_quoted(' '.join(one.words))}")
        for flag in one.flags:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in flag.names)
            values = (
                "" if flag.takes == "none" else f"-r -f -a {_quoted(' '.join(flag.words))}" if flag.words else "-r -F"
            )
            lines.append(" ".join(f"complete -c bend-hf {at} {names} {values} -d {_quoted(flag.text)}".split(" ")))
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell to print the script for")


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.cli._main import command_parser

    found = list(places(command_parser()))
    print({"bash": bash, "zsh": lambda all_of: _ZSH + bash(all_of), "fish": fish}[parsed.shell](found), end="")
    return 0


COMMANDS = (
    Command(
        key="completion",
        text="print the script with which a shell completes commands, flags and names",
        example='eval "$(bend-hf completion bash)"',
        add_flags=_add_flags,
        run=_run,
    ),
)
