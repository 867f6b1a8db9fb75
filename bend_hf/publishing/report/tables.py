"""Write the leaderboards of a report as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Final

from bend_hf.evaluation.layer_choice import LayerCurve
from bend_hf.publishing.gene_tables import EXPLAINED as GENES_EXPLAINED
from bend_hf.publishing.gene_tables import HEADER as GENES_HEADER
from bend_hf.publishing.gene_tables import HEADING as GENES
from bend_hf.publishing.leaderboard import BELOW, BELOW_CONTROL, MARKS, Leaderboard, Row
from bend_hf.publishing.published import EXPLAINED, HEADING
from bend_hf.publishing.shot_tables import EXPLAINED as SHOTS_EXPLAINED
from bend_hf.publishing.shot_tables import HEADER as SHOTS_HEADER
from bend_hf.publishing.shot_tables import HEADING as SHOTS
from bend_hf.tables import escaped, markdown_table, number, one_line

_NUMBER: Final = re.compile(r"-?[\d.]+(e[+-]?\d+)?|-?inf|-?nan")
_COLUMNS: Final = (
    *("task", "protocol", "data", "data_id", "metric", "rank", "tied_with_best", "tie_found_by", "p_against_best"),
    *("model", "family", "probe", "score", "low", "high", "interval", "seeds", "items", "n_parameters", "seconds"),
    *("chance", "below_chance", "below_best_control", "remarks"),
    *("not_publishable_because", "source"),
)


LAYERS: Final = "Layers"
LAYER_HEADER: Final = ("layer", "validation", "test", "interval", "interval over all layers", "seeds")


def as_markdown(boards: Sequence[Leaderboard], curves: Sequence[LayerCurve] = ()) -> str:
    """One heading and one table per leaderboard and per curve over layers, and the meaning of the marks."""
    lines = ["# BEND report", "", *(line for board in boards for line in _section(board))]
    lines += [line for curve in curves for line in _layers(curve)]
    marks = {row.mark for board in boards for row in board.rows}
    lines += [line for mark, text in MARKS.items() if mark in marks for line in (f"{mark} {text}.", "")]
    if any(row.rank is None for board in boards for row in board.rows):
        lines += ["\\- in place of a rank: items are missing or the score is undefined, so that it is not ranked.", ""]
    if any(row.result.reasons_not_to_publish for board in boards for row in board.rows):
        lines += ["† must not be published as a BEND score; `scores.csv` lists the reasons.", ""]
    return "\n".join(lines).rstrip() + "\n"


def layer_title(curve: LayerCurve) -> str:
    """The heading of a curve over layers."""
    return f"{LAYERS} of {curve.model}, {curve.task}, protocol {curve.protocol}"


def layer_rows(curve: LayerCurve) -> list[tuple[str, ...]]:
    """The rows of the table of a curve over layers; the chosen layer is marked."""
    chosen = curve.chosen
    return [
        (
            layer_name(point.layer) + (" (chosen)" if point is chosen else ""),
            number(point.validation),
            number(point.test),
            _ends(point.low, point.high),
            _ends(point.choice_low, point.choice_high),
            str(point.n_seeds),
        )
        for point in (*curve.points, *curve.mixes)
    ]


def layer_name(layer: int | str) -> str:
    """The name of a layer, or of a mix of layers without their numbers.

    >>> layer_name(3), layer_name("mean:0,6,12"), layer_name("scalar:0,6,12")
    ('3', 'mean of all', 'scalar mix of all')
    """
    kind = str(layer).partition(":")[0]
    return {"mean": "mean of all", "scalar": "scalar mix of all"}.get(kind, str(layer))


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"


def _layers(curve: LayerCurve) -> list[str]:
    """A curve over layers: a heading, the choice in words, and a table."""
    rows = [[escaped(cell) for cell in row] for row in layer_rows(curve)]
    title = escaped(layer_title(curve))
    return [f"## {title}", "", escaped(curve.in_words()), "", markdown_table(LAYER_HEADER, rows), ""]


def _section(board: Leaderboard) -> list[str]:
    rows = [_cells(row, board) for row in board.rows]
    rows += [["", escaped(name), "control", "", number(value), "", "", ""] for name, value in board.controls.items()]
    header = ["", "model", "family", "head", board.metric, "interval", "seeds", "seconds"]
    return [
        f"## {escaped(board.title)}, protocol {escaped(board.protocol)}",
        "",
        f"{board.n_items:,} items; data: {escaped(board.data)} ({board.data_id}).",
        "",
        markdown_table(header, rows),
        "",
        *_genes(board),
        *_shots(board),
        *_published(board),
        *(line for line in _notes(board) if line for line in (line, "")),
    ]


def _genes(board: Leaderboard) -> list[str]:
    """The structure of genes, in a table of its own."""
    rows = [[escaped(cell) for cell in row] for row in board.genes]
    return [f"**{GENES}.** {GENES_EXPLAINED}", "", markdown_table(GENES_HEADER, rows), ""] if rows else []


def _shots(board: Leaderboard) -> list[str]:
    """The scores of heads on few rows, in a table of their own."""
    rows = [[escaped(cell) for cell in row] for row in board.shots]
    if not rows:
        return []
    lines = [part for line in board.shot_lines for part in (f"{escaped(line)}.", "")]
    return [f"**{SHOTS}.** {SHOTS_EXPLAINED}", "", markdown_table(SHOTS_HEADER, rows), "", *lines]


def _published(board: Leaderboard) -> list[str]:
    """The scores that others report, in a table of their own."""
    if not board.published:
        return []
    rows = [
        [escaped(one.model), one.text, f"[{escaped(one.source)}]({one.url})", escaped(one.note)]
        for one in board.published
    ]
    return [
        f"**{HEADING}.** {EXPLAINED}",
        "",
        markdown_table(["model", board.metric, "source", "note"], rows),
        "",
    ]


def _notes(board: Leaderboard) -> list[str]:
    """The lines below a table: chance, power, remarks, parts of the variance and calibration."""
    chance = f"Chance: {escaped(board.chance)}." if board.chance else ""
    below = f"{BELOW} significantly below chance." if any(row.result.below_chance for row in board.rows) else ""
    if any(map(board.below_best_control, board.rows)):
        below = f"{below} {BELOW_CONTROL} below the best control.".lstrip()
    named = [*board.seed_spreads.items(), *board.calibrations.items()]
    texts = [*map(escaped, board.remarks), *(f"{escaped(name)}: {text}." for name, text in named)]
    return [chance, below, board.power, *texts]


def _cells(row: Row, board: Leaderboard) -> list[str]:
    result = row.result
    return [
        f"{row.rank if row.rank else '-'} {row.mark}".rstrip(),
        escaped(row.name) + (" †" if result.reasons_not_to_publish else ""),
        escaped(result.family),
        escaped(result.head.replace("_", " ")),
        board.score_text(row),
        f"{number(result.low)} to {number(result.high)}" if result.low is not None else "",
        ", ".join(map(str, result.seeds)),
        "" if result.seconds is None else f"{result.seconds:,.0f}",
    ]


def as_csv(boards: Sequence[Leaderboard]) -> str:
    """One line per row and per control, with all digits of every number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for board in boards:
        common = {"task": board.task, "protocol": board.protocol, "data": board.data, "data_id": board.data_id}
        common |= {"metric": board.metric, "items": str(board.n_items)}
        lines = [_row_values(row, board) for row in board.rows]
        lines += [
            {"model": name, "family": "control", "score": repr(value), "source": board.provenances.get(name, "")}
            for name, value in board.controls.items()
        ]
        lines += [
            {
                "model": one.model,
                "family": "published by others",
                "score": one.text,
                "data": "as the source says",
                "data_id": "",
                "items": "",
                "remarks": one.note,
                "source": f"{one.source}, {one.url}",
            }
            for one in board.published
        ]
        for line in lines:
            writer.writerow({name: one_line(_no_formula(value)) for name, value in (common | line).items()})
    return text.getvalue()


def _row_values(row: Row, board: Leaderboard) -> dict[str, str]:
    result, tie = row.result, row.tie
    return {
        "rank": str(row.rank or ""),
        "tied_with_best": "yes" if row.tied else "no",
        "tie_found_by": "" if tie is None else tie.basis,
        "p_against_best": "" if tie is None or tie.p is None else f"{tie.p:.4g}",
        "model": row.name,
        "family": result.family,
        "probe": result.head,
        "score": _digits(result.value),
        "low": _digits(result.low),
        "high": _digits(result.high),
        "interval": result.interval_method,
        "seeds": " ".join(map(str, result.seeds)),
        "n_parameters": "" if result.n_parameters is None else str(result.n_parameters),
        "seconds": "" if result.seconds is None else f"{result.seconds:.1f}",
        "chance": _digits(result.chance),
        "below_chance": "yes" if result.below_chance else "no",
        "below_best_control": "yes" if board.below_best_control(row) else "no",
        "remarks": "; ".join(result.remarks),
        "not_publishable_because": "; ".join(result.reasons_not_to_publish),
    }


def _digits(value: float | None) -> str:
    return "" if value is None else repr(value)


def _no_formula(text: str) -> str:
    """Text that a spreadsheet does not read as a formula; numbers stay as they are."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") and not _NUMBER.fullmatch(text) else text
