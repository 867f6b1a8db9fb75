"""Tables as text and as Markdown, and numbers and names as tables and cards print them.

>>> print(text_table(("task", "score"), [("a", number(0.79558))]))
task  score
------------
a     0.7956
>>> print(markdown_table(("task", "score"), [("a", number(None))]))
| task | score |
| --- | --- |
| a | undefined |
>>> escaped("a|b <script>")
'a&#124;b &lt;script&gt;'
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from bend_hf.errors import RecordError
from bend_hf.types import Json

if TYPE_CHECKING:
    import jinja2

_METRIC_TITLES: Final = {
    "mcc": "MCC",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "pearsonr": "Pearson r",
    "spearmanr": "Spearman r",
    "gene_structure": "exon F1",
}
_SIGNS: Final = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "|": "&#124;",
    "`": "&#96;",
    "*": "&#42;",
    "[": "&#91;",
    "]": "&#93;",
    "{": "&#123;",
    "}": "&#125;",
    "\\": "&#92;",
    "~": "&#126;",
}
# Control characters, and those that turn the direction of text around.
INVISIBLE: Final = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]")
_MARKUP_BY_PLACE: Final = re.compile(r"(?<![^\W_])_|_(?![^\W_])|^[#+-](?=[# ]|$)")  # emphasis, headings and lists
# The first of them without line ends and tabs, further ends of lines, and halves of surrogate pairs.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Show control characters, such as those that a terminal obeys, as escapes; line ends and tabs stay.

    >>> print(printable("a" + chr(27) + "[31mb"))
    a\x1b[31mb
    """
    return _CONTROLS.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)


Mark: TypeAlias = Literal["best", "tied"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that a command prints: as it stands in a file, or fitted to the terminal (``cli._output``).

    Attributes:
        header: Names of the columns.
        rows: Cells of each row.
        marks: Which rows, by number, hold the best score of their task, and which cannot be told from it.
        markdown: Whether its text is Markdown.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    marks: Mapping[int, Mark] = field(default_factory=dict)
    markdown: bool = False

    def __str__(self) -> str:
        if self.markdown:
            return markdown_table(self.header, self.rows, padded=True)
        return text_table(self.header, self.rows)


def one_line(text: str) -> str:
    r"""Show control characters as escapes, line ends and tabs too, so that a cell stays in its place.

    >>> print(one_line("a" + chr(10) + chr(27) + "[31mb"))
    a\n\x1b[31mb
    """
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns under their names, with a rule below the names."""
    lines = ["  ".join(cells).rstrip() for cells in _padded(header, rows)]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, padded: bool = False) -> str:
    """Write a Markdown table; escape cells of unknown content with ``escaped`` first.

    Args:
        header: Names of the columns.
        rows: Cells of each row.
        padded: Align the columns, so that the table reads well in a terminal too.
    """
    lines = _padded(header, rows) if padded else [header, *rows]
    rule = ["-" * len(cell) if padded else "---" for cell in lines[0]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [lines[0], rule, *lines[1:]])


def _padded(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [header, *rows]]


def escaped(text: object) -> str:
    """Return one line of Markdown that shows the text as it is, whatever it holds."""
    line = printable(INVISIBLE.sub("\ufffd", re.sub(r"\s+", " ", str(text)).strip()))
    line = "".join(_SIGNS.get(sign, sign) for sign in line)
    return _MARKUP_BY_PLACE.sub(lambda found: f"&#{ord(found[0])};", line)


def code(text: object) -> str:
    """Return Markdown that shows a name as code, or as plain text if code cannot hold it.

    >>> code("yes"), code("a|b")
    ('`yes`', 'a&#124;b')
    """
    return f"`{text}`" if re.fullmatch(r"[^\W_][\w .,:+/-]*", str(text), re.ASCII) else escaped(text)


def number(value: Json) -> str:
    """Format a score with four decimals; ``undefined`` if it is missing or not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return "undefined"
    return f"{value:.4f}"


def metric_title(metric: str) -> str:
    """Return a metric's name as papers write it."""
    return _METRIC_TITLES.get(metric, metric)


def counted(n: int, noun: str) -> str:
    """Write a count with its noun, in the plural unless there is one.

    >>> counted(1, "step"), counted(1200, "step")
    ('1 step', '1,200 steps')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def whole(value: Json) -> str:
    """Format a count with commas; ``not recorded`` if it is missing."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "not recorded"


def n_bytes(value: Json) -> str:
    """Format a size in bytes, kB, MB or GB; ``not recorded`` if it is missing."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "not recorded"
    if value < 1000:
        return f"{value:,.0f} bytes"
    exponent = 3 if value >= 1000**3 else 2 if value >= 1000**2 else 1
    return f"{value / 1000**exponent:,.1f} {('kB', 'MB', 'GB')[exponent - 1]}"


def quoted(text: str) -> str:
    """Return text as a JSON string, which is also a YAML string."""
    return json.dumps(text, ensure_ascii=False)


def render(template: Path, fields: Mapping[str, object], *, html: bool = False) -> str:
    """Fill a Jinja template; a missing field is an error, not an empty place.

    Args:
        template: The template file.
        fields: Values that the template may use.
        html: Escape everything that is not marked safe for HTML.

    Raises:
        RecordError: The template uses a field that is not given.
    """
    import jinja2

    try:
        return _compiled(template.read_text(encoding="utf-8"), html).render(**fields)
    except jinja2.UndefinedError as error:
        raise RecordError(f"the template {template.name} uses a field that is not given ({error})") from error


@cache
def _compiled(text: str, html: bool) -> jinja2.Template:
    """A template, compiled once for all cards and reports of a process."""
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=html,  # noqa: S701  Markdown and YAML escape by the filters md and quoted
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "md": escaped,
        "number": number,
        "whole": whole,
        "bytes": n_bytes,
        "quoted": quoted,
        "metric": metric_title,
    }
    return environment.from_string(text)
