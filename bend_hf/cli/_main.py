"""The command ``bend-hf``.

    bend-hf demo
    bend-hf build gene_finding --data data --out bend

Nothing heavy is imported before a command needs it, so that ``bend-hf --help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bend_hf import __version__
from bend_hf.cli import COMMANDS
from bend_hf.errors import BendError
from bend_hf.files import start_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; 1 where an input was bad, 2 where the flags were."""
    parser = _parser()
    parsed = parser.parse_args(argv)
    if parsed.command is None:
        parser.print_help()
        return 2
    start_logging()
    try:
        return COMMANDS.get(parsed.command).run(parsed)
    except BendError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was finished is kept", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bend-hf",
        description="BEND, the benchmark of DNA language models (ICLR 2024), on the Hugging Face stack.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bend-hf {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in COMMANDS:
        made = subparsers.add_parser(command.key, help=command.text, description=command.text, allow_abbrev=False)
        command.add_flags(made)
    return parser
