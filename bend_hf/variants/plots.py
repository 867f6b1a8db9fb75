"""The picture of a scoring: how a score is distributed in either class, and the ROC curve.

    from bend_hf.variants.plots import draw
    draw(predictions, Path("variants"))            # variants.png and variants.svg

Needs matplotlib, which comes with ``pip install 'bend-hf[plots]'``.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.errors import BendError
from bend_hf.evaluation.predictions import Predictions
from bend_hf.files import write_bytes
from bend_hf.types import IGNORE_LABEL, Classes, Floats
from bend_hf.variants.embedding_scores import MAIN, SCORE_COLUMNS
from bend_hf.variants.summary import values_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = ("#4c72b0", "#c44e52", "#8c8c8c")  # told apart with any colour vision, and in grey by line style
_STYLES: Final = ("-", "--", ":")
_N_BINS: Final = 50
_N_CURVE: Final = 512  # points of a curve; more cannot be seen


def roc_points(values: Floats, target: Classes) -> tuple[Floats, Floats]:
    """False and true positive rates, a point a distinct value, from (0, 0) to (1, 1).

    >>> [list(map(float, axis)) for axis in roc_points(np.array([.9, .8, .1]), np.array([1, 0, 1]))]
    [[0.0, 0.0, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0]]
    """
    order = np.argsort(-values, kind="stable")
    ranked, positive = values[order], target[order] == 1
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    true, false = np.cumsum(positive)[last], np.cumsum(~positive)[last]
    return np.append(0, false / max(false[-1], 1)), np.append(0, true / max(true[-1], 1))


def draw(predictions: Predictions, stem: Path, *, column: str = MAIN, title: str = "") -> list[Path]:
    """Draws one score and writes it as PNG and SVG.

    Args:
        predictions: Of variants; without labels there is one distribution and no curve.
        stem: Path without ending.
        column: Which score.
        title: What stands above.

    Returns:
        The files.

    Raises:
        BendError: matplotlib is missing, no variant has that score, or a file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BendError("plots need matplotlib; install it with pip install 'bend-hf[plots]'") from error
    values = values_of(predictions, column)
    has_score = np.isfinite(values)
    if not has_score.any():
        raise BendError(f"no variant has the score {column!r}; choose another to draw")
    values, target = values[has_score], predictions.target[has_score]
    described = next(entry for entry in SCORE_COLUMNS if entry.name == column)
    both = bool((target == 0).any() and (target == 1).any())
    figure = Figure(figsize=(9.0, 3.8) if both else (5.4, 3.8), layout="constrained")
    axes = figure.subplots(1, 2 if both else 1, squeeze=False)[0]
    _distributions(axes[0], values, target, predictions.label_names, described.text)
    if both:
        _curve(axes[1], values if described.rises_with_effect else -values, target)
    if title:
        figure.suptitle(title, fontsize=10)
    written = []
    # the same input gives the same bytes: no date, and element names by a fixed salt
    with matplotlib.rc_context({"svg.hashsalt": "bend_hf", "svg.fonttype": "none"}):
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            drawn = io.BytesIO()
            figure.savefig(drawn, format=ending, dpi=150, metadata=metadata)
            written.append(write_bytes(stem.with_name(f"{stem.name}.{ending}"), drawn.getvalue()))
    return written


def _distributions(axes: Axes, values: Floats, target: Classes, names: tuple[str, ...], text: str) -> None:
    edges = np.linspace(float(values.min()), float(values.max()) or 1.0, _N_BINS + 1)
    if edges[0] == edges[-1]:
        edges = np.linspace(edges[0] - 0.5, edges[0] + 0.5, _N_BINS + 1)
    classes = [(label, names[label]) for label in (0, 1)] + [(IGNORE_LABEL, "no label")]
    for (label, name), colour, style in zip(classes, _COLOURS, _STYLES, strict=True):
        chosen = values[target == label]
        if len(chosen):
            shares = np.histogram(chosen, edges)[0] / len(chosen)
            axes.stairs(shares, edges, color=colour, fill=True, alpha=0.25)
            axes.stairs(shares, edges, color=colour, linestyle=style, label=f"{name} (n = {len(chosen):,})")
    axes.set_xlabel(text)
    axes.set_ylabel("share of the class")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _curve(axes: Axes, values: Floats, target: Classes) -> None:
    known = target != IGNORE_LABEL
    false, true = roc_points(values[known], target[known])
    area = float(np.trapezoid(true, false))
    shown = np.unique(np.linspace(0, len(false) - 1, min(_N_CURVE, len(false))).astype(np.int64))
    axes.plot(false[shown], true[shown], color=_COLOURS[1], label=f"AUROC {area:.3f}")
    axes.plot([0, 1], [0, 1], color=_COLOURS[2], linestyle=":", zorder=3, label="chance 0.500")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
