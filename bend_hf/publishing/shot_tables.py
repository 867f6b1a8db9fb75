"""Tables of the score by the number of labels, for cards and reports. They stand apart from those of full trainings.

>>> point = {"shots": "10", "rows": 20, "value": 0.75, "over_seeds": {"low": 0.7, "high": 0.8}, "over_items": None}
>>> shot_rows("a model", {"points": [point]})
[('a model', '10', '20', '0.7500', '0.7000 to 0.8000', '', '', '')]
"""

from __future__ import annotations

from typing import Final

from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.evaluation.shots import passes_text
from bend_hf.tables import number
from bend_hf.types import Json

HEADING: Final = "Few shots"
EXPLAINED: Final = (
    "Heads that were trained on subsets of the training rows, several seeds each, with the epoch chosen on as many "
    "validation rows. The intervals over seeds (other rows, other first weights) and over test items are apart. The "
    "difference is that to the best control on the same rows, with an interval over both."
)
HEADER: Final = ("model", "shots", "rows", "score", "over seeds", "over items", "best control", "difference")


def shot_rows(name: str, shots: Json) -> list[tuple[str, ...]]:
    """Return a row for each number of shots, with the columns of ``HEADER``.

    Args:
        name: The model or the control.
        shots: The entry of its record.
    """
    points, compared = member(shots, "points"), member(shots, "against_controls", "points")
    by_shots = {str(member(one, "shots")): one for one in compared} if isinstance(compared, list) else {}
    rows: list[tuple[str, ...]] = []
    for point in points if isinstance(points, list) else ():
        shown = str(member(point, "shots"))
        against = by_shots.get(shown)
        difference = member(against, "difference")
        rows.append(
            (
                name,
                shown,
                str(member(point, "rows")),
                number(member(point, "value")),
                _ends(member(point, "over_seeds")),
                _ends(member(point, "over_items")),
                "" if against is None else str(member(against, "control")),
                "" if difference is None else " ".join(filter(None, (number(difference), _in_parentheses(against)))),
            )
        )
    return rows


def shot_lines(name: str, record: ResultRecord) -> list[str]:
    """Say what a shot is, and from how many on the model passes the best control; empty without a curve."""
    if record.shots is None:
        return []
    passes = member(record.shots, "against_controls", "passes")
    lines = [f"{name}: n shots are n {record.shots.get('unit')}"]
    return lines if passes is None else [*lines, f"{name} {passes_text(passes)}"]


def _ends(interval: Json) -> str:
    low, high = member(interval, "low"), member(interval, "high")
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"


def _in_parentheses(interval: Json) -> str:
    text = _ends(interval)
    return f"({text})" if text else ""
