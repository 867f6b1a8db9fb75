"""What a command prints: results on stdout, as text or as one JSON record in a line, and everything else on stderr.

>>> import sys
>>> show(argparse.Namespace(json_stream=sys.stdout), "one task", [{"task": "gene_finding", "score": float("nan")}])
{"task": "gene_finding", "score": null}
>>> show(argparse.Namespace(), "one task", [{"task": "gene_finding"}])
one task
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TextIO

from bend_hf.config import flag_group
from bend_hf.files import Loudness
from bend_hf.tables import Mark, Table, one_line, printable

if TYPE_CHECKING:
    from bend_hf.runs.forecast import Forecast

# Libraries read these when they are imported.
_QUIET: Final = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
# They show what they log by themselves, and pass it on to the root, which would show it again.
_LOG_TWICE: Final = ("datasets", "huggingface_hub")
_STYLES: Final[Mapping[Mark | None, str]] = {"best": "bold green", "tied": "cyan"}
_NUMBER: Final = re.compile(r"[-+]?[\d.,]+|undefined|")


def add_output_flags(parser: argparse.ArgumentParser, *, has_records: bool) -> None:
    """Add the flags that every command has, and ``--json`` to those that print records.

    Args:
        parser: Parser of a command; if the command has actions, the flags belong to each of them.
        has_records: Whether the command prints records.
    """
    actions = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    for child in [child for one in actions for child in one.choices.values()]:
        add_output_flags(child, has_records=has_records)
    if actions:
        return
    output = flag_group(parser, "output")
    if has_records:
        output.add_argument("--json", action="store_true", help="print one JSON record per line, and no other text")
    loudness = output.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="print only results and errors")
    loudness.add_argument("-v", "--verbose", action="store_true", help="log details, and where errors come from")


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--dry-run`` of commands that compute."""
    flag_group(parser, "output").add_argument(
        "--dry-run",
        action="store_true",
        help="show items, shards, gigabytes, minutes and what is cached; compute, download and write nothing",
    )


def show_forecast(parsed: argparse.Namespace, found: Sequence[Forecast], notes: Sequence[str] = ()) -> int:
    """Print what ``--dry-run`` found, and return the exit status."""
    from bend_hf.runs.forecast import forecast_table

    lines = [*notes, "dry run: nothing was computed or written"]
    show(parsed, [forecast_table(found), "", *lines], (one.as_json() for one in found))
    return 0


def loudness(parsed: argparse.Namespace) -> Loudness:
    """Return how much the flags ask to log."""
    return "quiet" if getattr(parsed, "quiet", False) else "verbose" if getattr(parsed, "verbose", False) else "normal"


@contextlib.contextmanager
def output_as_asked(parsed: argparse.Namespace) -> Iterator[None]:
    """Print as the flags and the terminal ask for until the block ends.

    With ``--json``, stdout belongs to the records. A terminal gets no control characters from names. With ``--quiet``,
    libraries show no progress. What a library logs is shown once.
    """
    quiet = _QUIET if loudness(parsed) == "quiet" else {}
    added = {name: value for name, value in quiet.items() if name not in os.environ}
    os.environ.update(added)
    twice = [logging.getLogger(name) for name in _LOG_TWICE]
    before = [logger.propagate for logger in twice]
    for logger in twice:
        logger.propagate = False
    try:
        with _stdout_as_asked(parsed):
            yield
    finally:
        for logger, propagate in zip(twice, before, strict=True):
            logger.propagate = propagate
        for name in added:
            os.environ.pop(name, None)


def _stdout_as_asked(parsed: argparse.Namespace) -> contextlib.AbstractContextManager[object]:
    if getattr(parsed, "json", False):
        parsed.json_stream = sys.stdout
        return contextlib.redirect_stdout(sys.stderr)
    return contextlib.redirect_stdout(_Printable(sys.stdout)) if sys.stdout.isatty() else contextlib.nullcontext()


def show(parsed: argparse.Namespace, text: str | Sequence[object], records: Iterable[Mapping[str, object]]) -> None:
    """Print results.

    Args:
        parsed: The flags.
        text: The results for people: lines, and tables, which are fitted to a terminal.
        records: The same results for programs, printed in place of the text with ``--json``.
    """
    stream = getattr(parsed, "json_stream", None)
    if stream is None:
        for part in [text] if isinstance(text, str) else text:
            if isinstance(part, Table) and fits_terminal():
                _print_fitted(part)
            else:
                print(part)
        return
    from bend_hf.evaluation.record import jsonable

    for record in records:
        stream.write(json.dumps(jsonable(record), allow_nan=False) + "\n")
    stream.flush()


def fits_terminal() -> bool:
    """Whether tables are fitted to the screen: stdout is a terminal that knows control characters."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def has_colors() -> bool:
    """Whether scores may be told apart by colors: tables are fitted to the screen, and ``NO_COLOR`` is not set."""
    return fits_terminal() and not os.environ.get("NO_COLOR")


def _print_fitted(table: Table) -> None:
    """Print a table in the width of the screen, with the best score of each task and those tied with it in color."""
    import rich.box
    import rich.console
    import rich.table
    import rich.text

    stream = sys.stdout
    console = rich.console.Console(
        file=stream.stream if isinstance(stream, _Printable) else stream,
        highlight=False,
        color_system="auto" if has_colors() else None,
    )
    header = [one_line(name) for name in table.header]
    rows = [[one_line(cell) for cell in row] for row in table.rows]
    widths = fitted_widths(list(zip(header, *rows, strict=True)), console.width)
    fitted = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column, (name, width) in enumerate(zip(header, widths, strict=False)):
        numeric = all(_NUMBER.fullmatch(row[column]) for row in rows)
        fitted.add_column(name, justify="right" if numeric else "left", overflow="fold", width=width)
    for place, row in enumerate(rows):
        style = _STYLES.get(table.marks.get(place), "")
        fitted.add_row(*(rich.text.Text(cell, style=style) for cell in row[: len(widths)]))
    console.print(fitted)
    if table.marks and has_colors():
        legend = rich.text.Text("best of its task", style=_STYLES["best"])
        console.print(legend.append("; ").append("cannot be told from it", style=_STYLES["tied"]))
    if len(widths) < len(header):
        left_out = ", ".join(header[len(widths) :])
        note = f"The screen is too narrow for {left_out}; append '| cat' to see all."
        console.print(note, markup=False, soft_wrap=True)


_LONGEST_WORD: Final = 16  # a longer one may be broken, but for those of the first column, which are typed
_GAP: Final = 2  # padding and the line between columns


def fitted_widths(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the widths of the columns that fit a screen, from the first one on; the widest ones shrink first.

    >>> fitted_widths([["task", "gene_finding"], ["split", "train, validation, test"], ["head", "CNN"]], 40)
    [12, 20, 4]
    >>> fitted_widths([["task", "gene_finding"], ["split", "train, validation, test"], ["head", "CNN"]], 26)
    [12, 12]
    """
    widths = [max(map(len, column)) for column in columns]
    words = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    least = [widths[0], *(min(longest, _LONGEST_WORD) for longest in words[1:])]
    while len(least) > 1 and sum(least) + _GAP * (len(least) - 1) > width:
        least.pop()
    widths = widths[: len(least)]
    while sum(widths) + _GAP * (len(widths) - 1) > width:
        slack = [wide - low for wide, low in zip(widths, least, strict=True)]
        if not any(slack):
            break
        widest = max((wide, number) for number, wide in enumerate(widths) if slack[number])[1]
        widths[widest] -= 1
    return widths


class _Printable(io.TextIOBase):
    """A terminal that shows the control characters of names as escapes, as ``tables.printable`` does."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(printable(text))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed declares a variable
        return self.stream.encoding


def progress_of(parsed: argparse.Namespace) -> Callable[[str], None]:
    """Return what prints the steps of a command: nothing with ``--quiet``."""
    return _nothing if loudness(parsed) == "quiet" else print


def _nothing(text: str) -> None:
    """Print nothing."""
