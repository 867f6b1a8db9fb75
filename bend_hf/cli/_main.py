"""The command ``bend-hf``.

    bend-hf demo
    bend-hf build gene_finding --data data --out bend

Heavy packages are imported where a command needs them, so ``bend-hf --help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from bend_hf import __version__
from bend_hf.cli import COMMANDS, Command
from bend_hf.cli._output import add_output_flags, loudness, output_as_asked
from bend_hf.cli._parser import Parser
from bend_hf.errors import BendError, hub_error, memory_error, own_error
from bend_hf.files import cache_folder, disk_error, free_space, start_logging
from bend_hf.tables import printable

log = logging.getLogger(__name__)

EXIT_STATUSES: Final = (
    "exit status: 0 for success, 1 if the data are bad or a run failed, 2 for a wrong flag or configuration, 130 if "
    "interrupted, 143 if terminated (SIGTERM)"
)


_FIRST_COMMANDS: Final = (
    "bend-hf demo",
    "bend-hf train cpg_methylation --data sample --model FOLDER",
    "bend-hf run all --data sample --model FOLDER onehot --controls",
    "bend-hf report results",
)
_MORE_MEMORY: Final = (
    "use smaller batches, fewer processes or a machine with more memory, and repeat the command; finished work is kept"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status; see ``EXIT_STATUSES``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = command_parser(COMMANDS.of_file(arguments[0]) if arguments else None)
    parsed = parser.parse_args([_utf8(argument, parser) for argument in arguments])
    if parsed.command is None:
        parser.print_help()
        return 2
    start_logging(loudness(parsed))
    log.debug("bend-hf %s, Python %s: %s", __version__, sys.version.split()[0], parsed)
    try:
        with _signals(), output_as_asked(parsed):
            command = COMMANDS.of_file(parsed.command) or COMMANDS.get(parsed.command)
            command.check(parsed)
            status = command.run(parsed)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        if not _reader_stopped():
            raise
        return 0
    except Exception as error:
        explained = _explain(error, parsed)
        if explained is None:
            raise
        log.debug("where the error comes from:", exc_info=error)
        text, status = explained
        print(f"error: {printable(text)}", file=sys.stderr)
        return status
    except _Terminated:
        print("terminated; finished work is kept", file=sys.stderr)
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print("interrupted; finished work is kept", file=sys.stderr)
        return 130
    finally:
        logging.getLogger("bend_hf").setLevel(logging.NOTSET)


def _utf8(argument: str, parser: argparse.ArgumentParser) -> str:
    """Check that an argument can be written into a record; Python reads other bytes as halves of surrogate pairs."""
    if not argument.isascii() and any("\ud800" <= sign <= "\udfff" for sign in argument):
        shown = argument.encode("utf-8", "backslashreplace").decode()
        parser.error(f"the argument {shown} is not UTF-8, which a record must hold; rename the file")
    return argument


def _explain(error: Exception, parsed: argparse.Namespace) -> tuple[str, int] | None:
    """Return what to print about an error, and the exit status; None for a defect, which is shown with its trace."""
    own, failed = own_error(error), disk_error(error)
    if failed is not None:
        return _explain_disk(own, failed, parsed), 1
    if own is not None:
        return str(own), own.exit_status
    if memory := memory_error(error):
        return f"{memory}; {_MORE_MEMORY}", 1
    if hub := hub_error(error):
        return f"{hub}; check the name and the network, and repeat the command", 1
    return _explain_user_code(error)


def _explain_user_code(error: Exception) -> tuple[str, int] | None:
    """Show where a file that the user named fails, from its first line on and not from where a command began."""
    from bend_hf.user_code import FILE_MODULES

    at = error.__traceback__
    while at is not None and not str(at.tb_frame.f_globals.get("__name__")).startswith(FILE_MODULES):
        at = at.tb_next
    if at is None:
        return None
    trace = "".join(traceback.format_tb(at)).rstrip()
    file = Path(at.tb_frame.f_code.co_filename)
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{file.name} failed ({what}); correct it\n{trace}", 1


def _explain_disk(own: BendError | None, error: OSError, parsed: argparse.Namespace) -> str:
    """Say which disk is full or fails, as far as it is known, and what to do, unless the error says so already."""
    if own is not None and ("free " in str(own).lower() or "kept" in str(own)):
        return str(own)
    folders = [Path(tempfile.gettempdir()), *(one for one in vars(parsed).values() if isinstance(one, Path))]
    folders += [cache_folder("")]
    what = str(own) if own is not None else f"{error.filename or 'a file'} cannot be written"
    return (
        f"{what} ({error.strerror or error}; free: {free_space(folders)}). Free some space or give another folder and "
        "repeat the command; finished work is kept"
    )


class _Terminated(KeyboardInterrupt):
    """The process got SIGTERM, as schedulers send it; whatever ends at Ctrl-C ends at this one too."""


_handled: list[signal.Signals] = []  # what ``_signals`` handles at the moment
_masks = threading.local()  # of the thread that forks


def _before_fork() -> None:
    """Hold signals back while the process forks: Python forgets one that reaches the child before it is ready.

    A worker that was told to end, and did not hear it, would be waited for without an end.
    """
    if _handled:
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _handled)


def _after_fork_in_parent() -> None:
    if _handled:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _after_fork_in_child() -> None:
    """Let workers end at the first signal, without what the command does at its end."""
    if _handled:
        for number in _handled:
            signal.signal(number, signal.SIG_DFL)
        _handled.clear()
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM end the block as SIGINT does: files are finished or removed, and leases are freed.

    A second signal of either kind ends the process at once. Forked workers end at the first one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end(number: int, _: FrameType | None) -> None:
        for one in _handled:
            signal.signal(one, signal.SIG_DFL)
        raise _Terminated if number == signal.SIGTERM else KeyboardInterrupt

    outer = list(_handled)
    _handled[:] = [number for number, handler in before.items() if handler is not signal.SIG_IGN]  # as with nohup
    for number in _handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in _handled:
            signal.signal(number, before[number])
        _handled[:] = outer


def _reader_stopped() -> bool:
    """Check whether the reader of the output, such as ``head``, has stopped; the rest of the output is dropped then."""
    output = select.poll()
    output.register(sys.stdout.fileno(), select.POLLOUT)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in output.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def command_parser(only: Command | None = None) -> Parser:
    """Return the parser of the command line.

    Args:
        only: The command that was typed, whose flags alone are made; None for all commands.
    """
    parser = Parser(
        prog="bend-hf",
        description="Run BEND, the benchmark of DNA language models (ICLR 2024), with Hugging Face libraries.",
        epilog=EXIT_STATUSES,
        example="\n  ".join(_FIRST_COMMANDS),
    )
    parser.add_argument("--version", action="version", version=f"bend-hf {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in COMMANDS if only is None else (only,):
        made = commands.add_parser(
            command.key,
            help=command.text,
            description=_sentence(command.text),
            epilog=EXIT_STATUSES,
            example=command.example,
        )
        command.add_flags(made)
        add_output_flags(made, has_records=command.has_records)
    return parser


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
