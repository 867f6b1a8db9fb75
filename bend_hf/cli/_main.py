"""The command ``bend-hf``.

    bend-hf demo
    bend-hf build gene_finding --data data --out bend

Heavy packages are imported where a command needs them, so ``bend-hf --help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Final

from bend_hf import __version__
from bend_hf.cli import COMMANDS
from bend_hf.errors import BendError
from bend_hf.files import start_logging

EXIT_STATUSES: Final = (
    "exit status: 0 for success, 1 if the data are bad or a run failed, 2 for a wrong flag or configuration, 130 if "
    "interrupted, 143 if terminated (SIGTERM)"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status; see ``EXIT_STATUSES``.
    """
    parser = _parser()
    parsed = parser.parse_args(argv)
    if parsed.command is None:
        parser.print_help()
        return 2
    start_logging()
    try:
        with _signals():
            status = COMMANDS.get(parsed.command).run(parsed)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        if not _reader_stopped():
            raise
        return 0
    except BendError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except _Terminated:
        print("terminated; finished work is kept", file=sys.stderr)
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print("interrupted; finished work is kept", file=sys.stderr)
        return 130


class _Terminated(KeyboardInterrupt):
    """The process got SIGTERM, as schedulers send it; whatever ends at Ctrl-C ends at this one too."""


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM end the block as SIGINT does: files are finished or removed, and leases are freed.

    A second signal of either kind ends the process at once. Forked workers end at the first one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    here = os.getpid()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end(number: int, _: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        if os.getpid() != here:
            os.kill(os.getpid(), number)
        raise _Terminated if number == signal.SIGTERM else KeyboardInterrupt

    handled = [number for number, handler in before.items() if handler is not signal.SIG_IGN]  # nohup stays in force
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


def _reader_stopped() -> bool:
    """Check whether the reader of the output, such as ``head``, has stopped; the rest of the output is dropped then."""
    output = select.poll()
    output.register(sys.stdout.fileno(), select.POLLOUT)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in output.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bend-hf",
        description="Run BEND, the benchmark of DNA language models (ICLR 2024), with Hugging Face libraries.",
        epilog=EXIT_STATUSES,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bend-hf {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in COMMANDS:
        made = subparsers.add_parser(
            command.key,
            help=command.text,
            description=_sentence(command.text),
            epilog=EXIT_STATUSES,
            allow_abbrev=False,
        )
        command.add_flags(made)
    return parser


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
