"""What a reader must know next to a score: too few steps of training, a score below chance, or a choice among layers.

Tables, cards and reports show these sentences as footnotes.

>>> few_steps_text(1)
'the head took 1 step of the optimizer, too few to say much about the model'
"""

from __future__ import annotations

from typing import Final

from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.tables import counted, number

FEW_STEPS: Final = 50  # of the optimizer; a head that took fewer says little about its model
_TWO: Final = 2


def remarks(record: ResultRecord) -> list[str]:
    """List the remarks on a score; empty if there is nothing to remark, or if the record is older."""
    few = fewest_steps(record)
    found = [] if few is None else [few_steps_text(few)]
    if member(record.metrics, record.main_metric, "below_chance") is True:
        found.append(below_chance_text(record))
    if (among := among_layers(record)) is not None:
        found.append(among)
    return found


def few_steps_text(steps: int) -> str:
    """Say how few steps a head took."""
    return f"the head took {counted(steps, 'step')} of the optimizer, too few to say much about the model"


def among_layers(record: ResultRecord) -> str | None:
    """Say among how many layers this one was tried, and where its score lies whichever is chosen; None if alone."""
    tried = member(record.layers, "tried")
    if not isinstance(tried, list) or len(tried) < _TWO or not isinstance(record.model.get("layer"), int):
        return None
    text = f"the layer is one of {len(tried)} that were tried together"
    low, high = (member(record.layers, "interval", end) for end in ("low", "high"))
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return text
    return f"{text}: whichever is chosen, its {record.main_metric} lies between {number(low)} and {number(high)}"


def below_chance_text(record: ResultRecord) -> str:
    """Say that the score is significantly below chance, and what that means."""
    chance = member(record.metrics, record.main_metric, "chance", "value")
    cause = "the order of the scores is reversed" if record.training is None else "what was learned holds in reverse"
    return (
        f"{record.main_metric} is significantly below chance ({number(chance)}): {cause} on the test items, as happens "
        "if they differ from what the model or the head expects"
    )


def fewest_steps(record: ResultRecord) -> int | None:
    """Return the steps of the shortest training of a record if it is marked as too short, else None."""
    runs = member(record.training, "runs")
    marked = [run for run in runs if member(run, "few_steps") is True] if isinstance(runs, list) else []
    steps = [n for n in (member(run, "steps") for run in marked) if isinstance(n, int)]
    return min(steps, default=None)
