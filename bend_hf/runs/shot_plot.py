"""Draw the score by the number of labels: a line per model, with both intervals, and a dashed line per control.

>>> x_of([{"shots": "1", "rows": 2}, {"shots": "all", "rows": 40}])
[2.0, 40.0]
"""

from __future__ import annotations

import importlib.util
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.files import write_bytes
from bend_hf.tables import metric_title
from bend_hf.types import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

# Okabe and Ito's colors, which color-blind readers can tell apart (Wong, Nature Methods 8, 441, 2011), and markers.
_MODELS: Final = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#000000", "X"))
_CONTROL_DASHES: Final = ((4, 2), (1, 1.5), (6, 2, 1, 2), (8, 3), (2, 4), (1, 4))
_CONTROL_COLOR: Final = "#6b6b6b"


def has_matplotlib() -> bool:
    """Check for matplotlib without a line in the log."""
    return importlib.util.find_spec("matplotlib") is not None


def x_of(points: Sequence[Json]) -> list[float]:
    """Return the rows that each point was trained on."""
    return [_number(member(point, "rows")) for point in points]


def curve_figure(
    models: Mapping[str, Sequence[Json]], controls: Mapping[str, Sequence[Json]], *, metric: str, title: str
) -> Figure:
    """Draw curves. Bars are intervals over seeds, shades are intervals over items.

    Args:
        models: Points of each model, as a record holds them.
        controls: Points of each control.
        metric: Name of the metric.
        title: Title of the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.8, 4.2), layout="constrained")
    axes = figure.subplots()
    for place, (name, points) in enumerate(models.items()):
        _draw_model(axes, name, points, _MODELS[place % len(_MODELS)])
    for place, (name, points) in enumerate(controls.items()):
        values = [_number(member(point, "value")) for point in points]
        dashes = (0, _CONTROL_DASHES[place % len(_CONTROL_DASHES)])
        axes.plot(x_of(points), values, color=_CONTROL_COLOR, linestyle=dashes, linewidth=1, label=f"control: {name}")
    axes.set_xscale("log")
    axes.set_xlabel("training rows")
    axes.set_ylabel(metric_title(metric))
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_model(axes: Axes, name: str, points: Sequence[Json], style: tuple[str, str]) -> None:
    color, marker = style
    x, y = np.array(x_of(points)), np.array([_number(member(point, "value")) for point in points])
    ends = {
        over: np.array([[_number(member(point, over, end)) for point in points] for end in ("low", "high")])
        for over in ("over_seeds", "over_items")
    }
    low, high = ends["over_items"]
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0, label=f"{name}, 95 % over items")
    low, high = ends["over_seeds"]
    known = np.isfinite(low)
    axes.errorbar(
        x[known], y[known], yerr=[y[known] - low[known], high[known] - y[known]], fmt="none", ecolor=color, capsize=3
    )
    axes.plot(x, y, color=color, marker=marker, label=f"{name}, bars 95 % over seeds")


def figure_of(record: ResultRecord) -> Figure | None:
    """Draw the curve of a record with its controls; None if it has none."""
    points = member(record.shots, "points")
    if not isinstance(points, list) or not points:
        return None
    controls = {key: member(entry, "shots") for key, entry in record.controls.items()}
    return curve_figure(
        {str(record.model.get("model")): points},
        {key: entry for key, entry in controls.items() if isinstance(entry, list)},
        metric=record.main_metric,
        title=f"{record.task}: the score by the number of labels",
    )


def curve_files(stem: Path) -> tuple[Path, Path]:
    """Return the paths of the PNG and the SVG that ``draw_curve`` writes."""
    return stem.with_name(f"{stem.name}.shots.png"), stem.with_name(f"{stem.name}.shots.svg")


def draw_curve(record: ResultRecord, stem: Path) -> list[Path]:
    """Write the figure of a record as PNG and SVG; nothing, with one line in the log, if matplotlib is missing.

    Args:
        record: A record with a curve.
        stem: Path of all files of the run, without the ending.
    """
    if not has_matplotlib():
        log.warning("no figure was drawn: matplotlib is not installed; pip install 'bend-hf[plots]' brings it")
        return []
    import matplotlib as mpl

    written = []
    # the same numbers give the same bytes: no date, and element names by a fixed salt
    with mpl.rc_context({"svg.hashsalt": "bend_hf", "svg.fonttype": "none"}):
        figure = figure_of(record)
        for file, metadata in zip(
            curve_files(stem), ({"Software": None}, {"Date": None, "Creator": None}), strict=True
        ):
            if figure is not None:
                drawn = io.BytesIO()
                figure.savefig(drawn, format=file.suffix[1:], dpi=150, metadata=metadata)
                written.append(write_bytes(file, drawn.getvalue()))
    return written


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan
