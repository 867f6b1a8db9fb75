"""The figures of a report show every number that they are given, in a place that it is read from."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")

from bend_hf.publishing.canvas import width_of
from bend_hf.publishing.figures import HeatMap, Panel, Point, Reliability, Scatter, drawing
from bend_hf.publishing.leaderboard import leaderboards
from bend_hf.publishing.report.plots import _forest, _heatmap
from tests.records import record

SVG = "{http://www.w3.org/2000/svg}"


def test_long_names_leave_room_for_the_plots() -> None:
    long = "nucleotide-transformer-v2-500m-multi-species"
    made = [
        record(model=name, value=0.8, controls={"random_twin": 0.5, "kmer": 0.6}) for name in (long, long + "-copy")
    ]
    [board] = leaderboards(made)
    with drawing():
        for figure in (_forest(board), _heatmap([board], "bend-2024")):
            page = ElementTree.fromstring(figure.files("a")["a.svg"])
            width = float(page.get("viewBox", "").split()[2])
            names = [one for one in page.iter(f"{SVG}text") if one.get("text-anchor") == "end"]
            assert {long, f"{long}-copy"} < {one.text for one in names}
            assert len(names) == 5
            right = float(names[0].get("x", ""))
            assert right > max(width_of(str(one.text), 9.0) for one in names), "names are not cut off at the left"
            assert width - right > 72, "an inch at least"


def test_scores_that_read_the_same_have_the_same_shade() -> None:
    heat = HeatMap(
        title="a", names=("x", "y", "z"), columns=("same", "not"), values=((0.4, 0.1), (0.4 + 1e-9, 0.2), (0.4, None))
    )
    cells = list(ElementTree.fromstring(heat.files("a")["a.svg"]).iter(f"{SVG}rect"))[1:]  # the first is the page
    columns: dict[str, list[str]] = {}
    for cell in cells:
        columns.setdefault(cell.get("x", ""), []).append(cell.get("fill", ""))
    first, second = columns.values()
    assert len(first) == 3
    assert len(set(first)) == 1
    assert len(set(second)) == 2, "a task without a score has no shade"


def test_each_point_of_a_cost_plot_is_in_its_panel_and_its_legend() -> None:
    points = tuple(Point(name=f"m{n}", value=0.5 + n / 20, low=0.4, high=0.9, x=10.0**n) for n in range(1, 8))
    panels = tuple(Panel(title=title, metric="mcc", points=points) for title in ("one", "two"))
    page = ElementTree.fromstring(Scatter(title="t", label="cost", panels=panels).files("a")["a.svg"])
    marks = len(list(page.iter(f"{SVG}circle"))) + len(list(page.iter(f"{SVG}polygon")))
    assert marks == 3 * len(points)
    texts = [one.text for one in page.iter(f"{SVG}text")]
    assert {"one", "two", "t", *(point.name for point in points)} <= set(texts)
    assert texts.count("cost") == texts.count("MCC") == 2
    bars = [one.get("points", "") for one in page.iter(f"{SVG}polyline") if one.get("stroke") in ("#0072b2", "#d55e00")]
    assert len(bars) == 4, "two of the colors, in two panels"


def test_a_plot_of_reliability_has_a_line_for_each_model() -> None:
    lines = (("a", ((0.1, 0.2), (0.5, 0.5), (0.9, 0.7))), ("b", ((0.2, 0.1), (0.8, 0.9))))
    page = ElementTree.fromstring(Reliability(title="t", lines=lines).files("a")["a.svg"])
    drawn = {one.get("stroke"): one.get("points", "").split() for one in page.iter(f"{SVG}polyline")}
    assert (len(drawn["#0072b2"]), len(drawn["#d55e00"])) == (3, 2)
    x, y = (float(one) for one in drawn["#0072b2"][1].split(","))
    (x0, y0), (x1, y1) = (map(float, one.split(",")) for one in drawn["#b3b3b3"])
    assert ((x - x0) / (x1 - x0), (y - y0) / (y1 - y0)) == pytest.approx((0.5, 0.5), abs=1e-3)
