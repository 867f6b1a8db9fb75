"""What a page shows is the same in its pixels and in its SVG."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("matplotlib")

from PIL import Image

from bend_hf.publishing.canvas import Canvas, width_of
from bend_hf.publishing.chart import Axes, Scale, in_decimals

SVG = "{http://www.w3.org/2000/svg}"
SCALE = 150 / 72  # pixels of a point


def pixels(page: Canvas) -> NDArray[np.uint8]:
    """Pixels from the lower left corner, shape (rows, columns, 3)."""
    return np.asarray(Image.open(io.BytesIO(page.files("a")["a.png"])).convert("RGB"))[::-1]


def elements(page: Canvas, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(page.files("a")["a.svg"]).iter(SVG + tag))


def inked(page: Canvas) -> tuple[float, float, float, float]:
    """Left, lower, right and upper end of what is not white, in points."""
    rows, columns = np.nonzero(pixels(page).min(axis=2) < 128)
    return (columns.min() / SCALE, rows.min() / SCALE, (columns.max() + 1) / SCALE, (rows.max() + 1) / SCALE)


def test_a_line_has_its_width_and_place_in_both_files() -> None:
    page = Canvas(100, 50)
    page.line([20, 80], [30, 30], color="#0072B2", width=4)
    assert inked(page) == pytest.approx((18, 28, 82, 32), abs=0.5)
    [line] = elements(page, "polyline")
    assert (line.get("points"), line.get("stroke-width"), line.get("stroke")) == (
        "20.00,20.00 80.00,20.00",
        "4",
        "#0072b2",
    )


@pytest.mark.parametrize("shape", ["o", "s", "^", "D", "v", "P", "X"])
def test_a_marker_covers_the_same_place_in_both_files(shape: str) -> None:
    page = Canvas(60, 40)
    page.marker(20, 25, shape, color="black", size=10)
    left, bottom, right, top = inked(page)
    if shape == "o":
        [circle] = elements(page, "circle")
        x, y, r = (float(circle.get(name, "")) for name in ("cx", "cy", "r"))
        expected = [x - r, 40 - y - r, x + r, 40 - y + r]
    else:
        [polygon] = elements(page, "polygon")
        corners = np.array([one.split(",") for one in polygon.get("points", "").split()], np.float64)
        (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
        expected = [x0, 40 - y1, x1, 40 - y0]
    assert [left, bottom, right, top] == pytest.approx(expected, abs=1.3)  # the edge lies on both sides of the outline
    assert (left + right) / 2 == pytest.approx(20, abs=0.5)


def test_rectangles_meet_without_a_gap() -> None:
    page = Canvas(30, 10)
    page.rectangle(0, 0, 10.33, 10, color="black")
    page.rectangle(10.33, 0, 19.67, 10, color="black")
    assert pixels(page)[5:-5].max() == 0


@pytest.mark.parametrize(("align", "ends"), [("left", (50, None)), ("right", (None, 50))])
def test_a_text_begins_or_ends_where_it_is_aligned(align: str, ends: tuple[float | None, float | None]) -> None:
    page = Canvas(100, 30)
    page.text((50, 15), "HHH", size=12, align=align)  # type: ignore[arg-type]
    left, bottom, right, top = inked(page)
    assert ends[0] is None or left == pytest.approx(50, abs=2)
    assert ends[1] is None or right == pytest.approx(50, abs=2)
    assert (bottom + top) / 2 == pytest.approx(15, abs=0.6), "its middle is at the level of the place"
    assert right - left == pytest.approx(width_of("HHH", 12), rel=0.15)
    assert [one.text for one in elements(page, "text")] == ["HHH"]


def test_lines_of_a_text_go_down_from_the_top() -> None:
    page = Canvas(100, 60)
    page.text((50, 55), "HH\nHHHH", size=10, align="center", level="top")
    _, bottom, _, top = inked(page)
    assert top == pytest.approx(55, abs=1)
    assert bottom == pytest.approx(55 - 10 * (1.2 + 0.73), abs=1.5)
    first, second = (float(one.get("y", "")) for one in elements(page, "text"))
    assert second - first == pytest.approx(12)


def test_a_text_that_is_turned_is_read_from_below() -> None:
    page = Canvas(40, 100)
    page.upright_text((20, 50), "HHHHHH", size=10)
    left, bottom, right, top = inked(page)
    assert top - bottom > 4 * (right - left)
    assert ((left + right) / 2, (bottom + top) / 2) == pytest.approx((20, 50), abs=2)


def test_signs_of_markup_are_escaped() -> None:
    page = Canvas(100, 30)
    page.text((50, 15), "<b> & $x$")
    [text] = elements(page, "text")
    assert text.text == "<b> & $x$"


def test_the_same_calls_give_the_same_bytes() -> None:
    def drawn() -> dict[str, bytes]:
        page = Canvas(50, 50)
        page.marker(20, 20, "D", color="#D55E00", fill="white")
        page.text((25, 25), "a", color="white")
        return page.files("plots/a")

    assert drawn() == drawn()
    assert set(drawn()) == {"plots/a.png", "plots/a.svg"}


def test_a_scale_holds_its_values_with_a_margin() -> None:
    scale = Scale.around([0.2, 0.4, 0.9])
    assert (scale.low, scale.high) == pytest.approx((0.165, 0.935))
    assert scale.part([0.2, 0.9]).tolist() == pytest.approx([0.05 / 1.1, 1.05 / 1.1])
    same = Scale.around([0.4, 0.4])
    assert same.low < 0.4 < same.high
    assert Scale.around([]).part([0.5]).tolist() == pytest.approx([0.5])


def test_a_logarithmic_scale_has_the_same_length_for_each_factor() -> None:
    scale = Scale(low=1e3, high=1e9, log=True)
    assert scale.part([1e3, 1e5, 1e9]).tolist() == pytest.approx([0, 1 / 3, 1])
    decades = scale.log_ticks((1,))
    assert set(decades) <= {1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}, "a version of matplotlib leaves out every other one"
    assert (decades[0], decades[-1]) == (1e3, 1e9)
    assert Scale(low=150, high=2_400, log=True).log_ticks((1, 2, 5)) == [200, 500, 1_000, 2_000]


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.312, 0.894), (-0.05, 0.85), (0.375, 0.425), (0.9, -0.6), (1e-7, 3e-7), (0.0, 5e4)]
)
@pytest.mark.parametrize("points", [60, 200, 500])
def test_ticks_lie_inside_and_their_names_differ(low: float, high: float, points: float) -> None:
    ticks = Scale(low=low, high=high).ticks(points, 40)
    assert 1 <= len(ticks) <= max(points / 40, 2) + 1
    room = 1e-9 * abs(high - low)
    assert all(min(low, high) - room <= tick <= max(low, high) + room for tick in ticks)
    names = in_decimals(ticks)
    assert len(set(names)) == len(names)
    assert [float(name.replace("\N{MINUS SIGN}", "-")) for name in names] == pytest.approx(ticks, abs=1e-12)


def test_a_label_that_is_wider_than_its_axes_stays_on_the_page() -> None:
    page = Canvas(200, 80)
    whole = Scale(low=0.0, high=1.0)
    axes = Axes(page=page, left=120, bottom=40, width=70, height=30, x=whole, y=whole)
    axes.ticks_below([], [], label="a label of more than seventy points")
    left, _, right, _ = inked(page)
    assert left > 20
    assert right < 200 - 1
