"""A page to draw lines, markers and texts on, which becomes a PNG and an SVG.

    page = Canvas(360, 240)
    page.line([20, 340], [120, 120], color="#0072B2", width=2)
    page.text((180, 220), "Gene finding", size=11, align="center")
    files = page.files("plots/example")

Lengths and places are in points, 72 to an inch, from the lower left corner. matplotlib paints the pixels and brings the
fonts; the objects of its figures, which take ten times as long, are left out. The same calls give the same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Final, Literal, TypeAlias

import numpy as np
from matplotlib.backend_bases import GraphicsContextBase
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.image import imsave
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as Outline
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

Align: TypeAlias = Literal["left", "center", "right"]
Level: TypeAlias = Literal["top", "center", "bottom"]

_DPI: Final = 150
_FONTS: Final = "'DejaVu Sans', Verdana, sans-serif"
_LINE_HEIGHT: Final = 1.2  # of the font's size
_ASCENT: Final = 0.76  # of the font's size, as DejaVu Sans has them
_DESCENT: Final = 0.24
_MIDDLE: Final = 0.36  # half of a capital letter
_ANCHORS: Final = {"left": "start", "center": "middle", "right": "end"}
_MARKER_EDGE: Final = 1.0


class Canvas:
    """A white page.

    Args:
        width: In points.
        height: In points.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._scale = _DPI / 72
        self._agg = RendererAgg(round(width * self._scale), round(height * self._scale), _DPI)
        self._agg.clear()
        self._svg: list[str] = []
        self.rectangle(0, 0, width, height, color="white")

    def line(
        self,
        x: Sequence[float] | NDArray[np.float64],
        y: Sequence[float] | NDArray[np.float64],
        *,
        color: str,
        width: float = 1.0,
        dashes: tuple[float, ...] = (),
    ) -> None:
        """Draw a line through points.

        Args:
            x: Places of the points.
            y: Places of the points.
            color: Name or hexadecimal code.
            width: In points.
            dashes: Lengths of dashes and gaps, in points; none for a solid line.
        """
        pen = self._pen(color, width)
        pen.set_capstyle("butt" if dashes else "projecting")
        if dashes:
            pen.set_dashes(0, list(dashes))
        self._agg.draw_path(pen, Outline(np.column_stack([x, y])), self._to_pixels())
        places = " ".join(f"{a:.2f},{self.height - b:.2f}" for a, b in zip(x, y, strict=True))
        ends = f'stroke-dasharray="{" ".join(f"{one:g}" for one in dashes)}"' if dashes else 'stroke-linecap="square"'
        self._svg.append(
            f'<polyline points="{places}" fill="none" stroke="{_hex(color)}" stroke-width="{width:g}" {ends}/>'
        )

    def rectangle(self, x: float, y: float, width: float, height: float, *, color: str) -> None:
        """Fill a rectangle.

        Args:
            x: Its left side.
            y: Its lower side.
            width: In points.
            height: In points.
            color: Name or hexadecimal code.
        """
        pen = self._pen(color, 0)
        corners = Outline([(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)], closed=True)
        self._agg.draw_path(pen, corners, self._to_pixels(), to_rgb(color))
        at = f'x="{x:.2f}" y="{self.height - y - height:.2f}" width="{width:.2f}" height="{height:.2f}"'
        self._svg.append(f'<rect {at} fill="{_hex(color)}" shape-rendering="crispEdges"/>')

    def marker(self, x: float, y: float, shape: str, *, color: str, fill: str | None = None, size: float = 6.0) -> None:
        """Draw a marker.

        Args:
            x: Its middle.
            y: Its middle.
            shape: As matplotlib calls it, for example ``o`` or ``^``.
            color: Color of its edge.
            fill: Color of its inside; None for that of its edge.
            size: In points.
        """
        outline = _outline(shape)
        pen = self._pen(color, _MARKER_EDGE)
        pen.set_joinstyle("miter")
        place = Affine2D().scale(size).translate(x, y) + self._to_pixels()
        self._agg.draw_path(pen, outline, place, to_rgb(fill or color))
        style = f'fill="{_hex(fill or color)}" stroke="{_hex(color)}" stroke-width="{_MARKER_EDGE:g}"'
        if shape == "o":
            self._svg.append(f'<circle cx="{x:.2f}" cy="{self.height - y:.2f}" r="{size / 2:g}" {style}/>')
            return
        corners = " ".join(f"{x + a * size:.2f},{self.height - y - b * size:.2f}" for a, b in _corners(shape))
        self._svg.append(f'<polygon points="{corners}" {style}/>')

    def text(
        self,
        at: tuple[float, float],
        text: str,
        *,
        size: float = 9.0,
        align: Align = "left",
        level: Level = "center",
        color: str = "black",
    ) -> None:
        """Write a text of one or more lines.

        Args:
            at: The place that ``align`` and ``level`` name.
            text: The text.
            size: Size of the font.
            align: Which part of each line is at the place.
            level: Which part of the text is at the place.
            color: Name or hexadecimal code.
        """
        lines, (x, y), step = text.split("\n"), at, size * _LINE_HEIGHT
        below = step * (len(lines) - 1)
        first = {
            "top": y - _ASCENT * size,
            "center": y - _MIDDLE * size + below / 2,
            "bottom": y + _DESCENT * size + below,
        }[level]
        for number, line in enumerate(lines):
            baseline = first - number * step
            left = x - width_of(line, size) * {"left": 0.0, "center": 0.5, "right": 1.0}[align]
            self._paint((left, baseline), line, size, color)
            self._write(f'x="{x:.2f}" y="{self.height - baseline:.2f}"', line, size, color, _ANCHORS[align])

    def upright_text(self, at: tuple[float, float], text: str, *, size: float = 9.0) -> None:
        """Write one line that is read from below, around a place."""
        x, y = at[0] + _MIDDLE * size, at[1]
        self._paint((x, y - width_of(text, size) / 2), text, size, "black", angle=90)
        turned = f'transform="translate({x:.2f} {self.height - y:.2f}) rotate(-90)"'
        self._write(turned, text, size, "black", "middle")

    def files(self, stem: str) -> dict[str, bytes]:
        """Return the page as ``stem.png`` and ``stem.svg``."""
        png = io.BytesIO()
        imsave(png, np.asarray(self._agg.buffer_rgba()), format="png", dpi=_DPI, pil_kwargs={"pnginfo": None})
        size = f'width="{self.width:g}pt" height="{self.height:g}pt" viewBox="0 0 {self.width:g} {self.height:g}"'
        head = f'<?xml version="1.0" encoding="utf-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" {size}>\n'
        svg = f'{head}<g font-family="{_FONTS}">\n' + "\n".join(self._svg) + "\n</g>\n</svg>\n"
        return {f"{stem}.png": png.getvalue(), f"{stem}.svg": svg.encode("utf-8")}

    def _pen(self, color: str, width: float) -> GraphicsContextBase:
        pen: GraphicsContextBase = self._agg.new_gc()
        pen.set_foreground(to_rgb(color), isRGBA=False)
        pen.set_linewidth(width)
        pen.set_snap(None)
        return pen

    def _to_pixels(self) -> Affine2D:
        return Affine2D().scale(self._scale)

    def _paint(self, at: tuple[float, float], text: str, size: float, color: str, angle: float = 0.0) -> None:
        """Paint a line of text that begins at a place on its baseline."""
        if text:
            x, down = at[0] * self._scale, self._agg.height - at[1] * self._scale
            self._agg.draw_text(self._pen(color, 0), x, down, text, _font(size), angle)

    def _write(self, place: str, text: str, size: float, color: str, anchor: str) -> None:
        if text:
            colored = "" if color == "black" else f' fill="{_hex(color)}"'
            self._svg.append(
                f'<text {place} font-size="{size:g}" text-anchor="{anchor}"{colored}>{escape(text, quote=False)}</text>'
            )


def width_of(text: str, size: float) -> float:
    """Return the width of the longest line of a text, in points."""
    return max((_width_of_line(line, size) for line in text.split("\n") if line), default=0.0)


@lru_cache(maxsize=4096)
def _width_of_line(text: str, size: float) -> float:
    return float(_measure().get_text_width_height_descent(text, _font(size), ismath=False)[0] * 72 / _DPI)


@lru_cache(maxsize=1)
def _measure() -> RendererAgg:
    return RendererAgg(1, 1, _DPI)


@lru_cache(maxsize=16)
def _font(size: float) -> FontProperties:
    return FontProperties(size=size)


@lru_cache(maxsize=16)
def _outline(shape: str) -> Outline:
    """The outline of a marker of size 1, closed."""
    style = MarkerStyle(shape)
    return style.get_path().transformed(style.get_transform())


@lru_cache(maxsize=16)
def _corners(shape: str) -> list[tuple[float, float]]:
    """The corners of a marker of size 1 with straight sides."""
    return [(float(x), float(y)) for x, y in np.asarray(_outline(shape).vertices, np.float64)[:-1]]


@lru_cache(maxsize=256)
def _hex(color: str) -> str:
    return "#" + "".join(f"{math.floor(255 * part + 0.5):02x}" for part in to_rgb(color))
