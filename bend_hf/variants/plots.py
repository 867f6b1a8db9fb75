"""The figure of a scoring: the distribution of a score in each class, and its ROC curve.

    from bend_hf.variants.plots import draw_score
    draw_score(predictions, Path("variants"))            # variants.png and variants.svg

Needs matplotlib, which comes with ``pip install 'bend-hf[plots]'``.
"""

from __future__ import annotations

import io
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.errors import BendError
from bend_hf.evaluation.predictions import Predictions
from bend_hf.files import write_bytes
from bend_hf.types import IGNORE_LABEL, Floats, Labels
from bend_hf.variants.scores import MAIN, SCORES
from bend_hf.variants.summary import values_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

_COLORS: Final = ("#4c72b0", "#c44e52", "#8c8c8c")  # distinct with any color vision, and in gray by line style
_STYLES: Final = ("-", "--", ":")
_N_BINS: Final = 50
_DPI: Final = 150
_N_CURVE: Final = 512  # points of a curve; more cannot be seen


def figure_files(stem: Path) -> tuple[Path, Path]:
    """Return the paths of the PNG and the SVG that ``draw_score`` writes."""
    return stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")


def draw_missing(predictions: Predictions, stem: Path, *, title: str) -> tuple[Path, ...]:
    """Draw BEND's score unless both files of the figure are there; return them, or nothing if no variant has it.

    Args:
        predictions: Variants with their scores.
        stem: Path without extension.
        title: Title of the figure.

    Raises:
        BendError: A file cannot be written.
    """
    if not np.isfinite(values_of(predictions, MAIN)).any():
        log.info("%s: no figure is drawn, as no variant has the score %r", stem.name, MAIN)
        return ()
    files = figure_files(stem)
    if not all(file.is_file() for file in files):
        draw_score(predictions, stem, title=title)
    return files


def plots_available() -> bool:
    """Check for matplotlib, and log one line if it is missing; call it before the expensive step."""
    if find_spec("matplotlib") is not None:
        return True
    log.warning("no figure will be drawn: matplotlib is not installed; pip install 'bend-hf[plots]' brings it")
    return False


def roc_points(values: Floats, target: Labels) -> tuple[Floats, Floats]:
    """Compute false and true positive rates, one point per distinct value, from (0, 0) to (1, 1).

    >>> [list(map(float, axis)) for axis in roc_points(np.array([.9, .8, .1]), np.array([1, 0, 1]))]
    [[0.0, 0.0, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0]]
    """
    order = np.argsort(-values, kind="stable")
    ranked, positive = values[order], target[order] == 1
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    true, false = np.cumsum(positive)[last], np.cumsum(~positive)[last]
    return np.append(0, false / max(false[-1], 1)), np.append(0, true / max(true[-1], 1))


def draw_score(predictions: Predictions, stem: Path, *, key: str = MAIN, title: str = "") -> list[Path]:
    """Draw one score and write the figure as PNG and SVG.

    Args:
        predictions: Variants with their scores. Without labels, there is one distribution and no curve.
        stem: Path without extension.
        key: Which score to draw.
        title: Title of the figure.

    Returns:
        The PNG and the SVG.

    Raises:
        BendError: matplotlib is missing, no variant has that score, or a file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BendError("figures need matplotlib; install it with pip install 'bend-hf[plots]'") from error
    values = values_of(predictions, key)
    has_score = np.isfinite(values)
    if not has_score.any():
        raise BendError(f"no variant has the score {key!r}; draw another one")
    values, target = values[has_score], predictions.target[has_score]
    described = SCORES.get(key)
    both = bool((target == 0).any() and (target == 1).any())
    figure = Figure(figsize=(9.0, 3.8) if both else (5.4, 3.8), layout="constrained")
    axes = figure.subplots(1, 2 if both else 1, squeeze=False)[0]
    _draw_distributions(axes[0], values, target, predictions.label_names, described.text)
    if both:
        _draw_curve(axes[1], values if described.rises_with_effect else -values, target)
    if title:
        figure.suptitle(title, fontsize=10)
    written = []
    # the same input gives the same bytes: no date, and element names by a fixed salt
    with matplotlib.rc_context({"svg.hashsalt": "bend_hf", "svg.fonttype": "none"}):
        figure.set_dpi(_DPI)
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine(None)  # otherwise each file is drawn once more to lay it out
        for file, metadata in zip(figure_files(stem), ({"Software": None}, {"Date": None}), strict=True):
            drawn = io.BytesIO()
            figure.savefig(drawn, format=file.suffix[1:], dpi=_DPI, metadata=metadata)
            written.append(write_bytes(file, drawn.getvalue()))
    return written


def _draw_distributions(axes: Axes, values: Floats, target: Labels, names: tuple[str, ...], text: str) -> None:
    edges = np.linspace(float(values.min()), float(values.max()) or 1.0, _N_BINS + 1)
    if edges[0] == edges[-1]:
        edges = np.linspace(edges[0] - 0.5, edges[0] + 0.5, _N_BINS + 1)
    classes = [(label, names[label]) for label in (0, 1)] + [(IGNORE_LABEL, "no label")]
    for (label, name), color, style in zip(classes, _COLORS, _STYLES, strict=True):
        chosen = values[target == label]
        if len(chosen):
            fractions = np.histogram(chosen, edges)[0] / len(chosen)
            axes.stairs(fractions, edges, color=color, fill=True, alpha=0.25)
            axes.stairs(fractions, edges, color=color, linestyle=style, label=f"{name} (n = {len(chosen):,})")
    axes.set_xlabel(text)
    axes.set_ylabel("fraction of the class")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_curve(axes: Axes, values: Floats, target: Labels) -> None:
    known = target != IGNORE_LABEL
    false, true = roc_points(values[known], target[known])
    area = float(np.trapezoid(true, false))
    shown = np.unique(np.linspace(0, len(false) - 1, min(_N_CURVE, len(false))).astype(np.int64))
    axes.plot(false[shown], true[shown], color=_COLORS[1], label=f"AUROC {area:.3f}")
    axes.plot([0, 1], [0, 1], color=_COLORS[2], linestyle=":", zorder=3, label="chance 0.500")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
