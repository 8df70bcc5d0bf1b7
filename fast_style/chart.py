"""Charts of L-BFGS's curves on log axes, as SVG for pages and as pixels for files.

A chart is laid out once, as a list of shapes; two small writers turn shapes into SVG, whose colours
follow the page's light or dark theme, or into a picture.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fast_style.curves import from_start

if TYPE_CHECKING:
    from fast_style.curves import Iterations
    from fast_style.quality import PhotoScore, StyleScore

Point = tuple[float, float]
Role = Literal["text", "muted", "grid", "curve", "faint", "model"]
Anchor = Literal["start", "middle", "end"]

COLOURS: dict[Role, tuple[str, str]] = {
    "text": ("#1c2024", "#eceef0"),
    "muted": ("#6a7178", "#9aa3ab"),
    "grid": ("#e3e6e9", "#2f353b"),
    "curve": ("#2563b8", "#74aef5"),
    "faint": ("#aec8ea", "#37557c"),
    "model": ("#d2480c", "#ff9b5e"),
}
"""What a shape is, to its colour on light and on dark paper."""

_PAPER = "#ffffff"
_SUPERSAMPLING = 3
_DASH = (6.0, 4.0)
_CAP_HEIGHT = 0.35  # Half a capital's height, of the font size: centres text on a tick.


@dataclass(frozen=True)
class Line:
    """A line through points, in the chart's pixels."""

    points: tuple[Point, ...]
    role: Role
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Dot:
    """A disc, or a ring on paper."""

    at: Point
    role: Role
    radius: float = 4.0
    filled: bool = True


@dataclass(frozen=True)
class Label:
    """A line of text, vertically centred on a point."""

    at: Point
    text: str
    role: Role = "muted"
    anchor: Anchor = "start"
    size: float = 12.0
    bold: bool = False


@dataclass(frozen=True)
class Chart:
    """A finished layout.

    Attributes:
      width: In pixels.
      height: In pixels.
      description: What it shows, for those who do not see it.
      shapes: Drawn in this order.
    """

    width: int
    height: int
    description: str
    shapes: tuple[Line | Dot | Label, ...]


# --- the two charts ------------------------------------------------------------------------------


def photo_chart(
    photo: PhotoScore,
    iterations: int,
    *,
    start: str = "photo",
    width: int = 380,
    height: int = 230,
) -> Chart:
    """Draws one photo's curve, the model's level, and where they cross."""
    levels = [*photo.curve.losses, photo.loss]
    axes = _Axes(width, height, iterations, min(levels), max(levels))
    anchor: Anchor
    shapes = axes.frame(_short_number, f"L-BFGS iterations{from_start(start)}")
    level = axes.y(photo.loss)
    shapes.append(Line(((axes.left, level), (axes.right, level)), "model", 1.5, dashed=True))
    shapes.append(Line(axes.curve(photo.curve.losses), "curve", 2.0))
    shapes.append(_crossing(axes, photo, photo.loss))
    # Above the level, at the end where the curve is not: it falls, so right of the crossing, or far
    # left of a late one.
    if axes.right - axes.x(photo.worth.value) > 90:
        at, anchor = (axes.right, level - 11), "end"
    else:
        at, anchor = (axes.left + 8, level - 11), "start"
    shapes.append(Label(at, _n_is(photo.worth), "model", anchor, 13.0, bold=True))
    description = (
        f"Loss of {photo.path.name} under L-BFGS over {photo.curve.iterations} iterations, from "
        f"{photo.start_loss:,.0f} to {photo.curve.losses[-1]:,.0f}; the model has {photo.loss:,.0f}"
    )
    return Chart(width, height, description, tuple(shapes))


def style_chart(
    style: StyleScore,
    iterations: int,
    *,
    start: str = "photo",
    title: str = "",
    width: int = 860,
    height: int = 440,
) -> Chart:
    """Draws all photos' curves relative to their own loss, their median, and the model on each.

    Args:
      style: What was measured.
      iterations: Where the axis ends.
      start: What the curves start from, one of `curves.STARTS`.
      title: Above the chart; none leaves no room for one.
      width: In pixels, from 360.
      height: In pixels.
    """
    relative = [photo.curve.losses / photo.photo_loss for photo in style.photos]
    levels = [photo.loss / photo.photo_loss for photo in style.photos]
    ends = [float(losses.min()) for losses in relative]
    starts = [float(losses[0]) for losses in relative]
    legend = 54.0 if title else 22.0
    narrow = width < 600
    top = legend + (44 if narrow else 24)
    axes = _Axes(width, height, iterations, min(levels + ends), max(starts + levels), top=top)
    shapes = axes.frame(_percent, f"L-BFGS iterations{from_start(start)}")
    if title:
        shapes.append(Label((16, 24), title, "text", size=18.0, bold=True))
    shapes += _legend(16, legend, ("each photo", "median photo", "the model"))
    unit = (16.0, legend + 20) if narrow else (axes.right, legend)
    text = "loss, relative to the photo's own"
    shapes.append(Label(unit, text, anchor="start" if narrow else "end"))
    median = style.worth()
    at = axes.x(median.value)
    shapes.append(Line(((at, axes.top), (at, axes.bottom)), "model", 1.5, dashed=True))
    for losses in relative:
        shapes.append(Line(axes.curve(losses), "faint", 1.2))
    # A curve that ended early stays where it is.
    length = max(len(losses) for losses in relative)
    even = [np.pad(losses, (0, length - len(losses)), mode="edge") for losses in relative]
    shapes.append(Line(axes.curve(np.median(even, axis=0)), "curve", 2.6))
    for photo, level in zip(style.photos, levels, strict=True):
        shapes.append(_crossing(axes, photo, level))
    left = at - axes.left > 150
    place: Point = (at - 8 if left else at + 8, axes.bottom - 14)
    text = f"median {_n_is(median)}"
    shapes.append(Label(place, text, "model", "end" if left else "start", 15.0, bold=True))
    description = (
        f"Loss relative to the photo's own under L-BFGS, for {len(style.photos)} photos; the model "
        f"is worth {median} iterations in the median"
    )
    return Chart(width, height, description, tuple(shapes))


def _n_is(worth: Iterations) -> str:
    return f"N > {str(worth)[1:]}" if worth.censored else f"N = {worth}"


def _legend(x: float, y: float, names: Sequence[str]) -> list[Line | Dot | Label]:
    shapes: list[Line | Dot | Label] = []
    for name, role in zip(names, ("faint", "curve", "model"), strict=True):
        if role == "model":
            shapes.append(Dot((x + 10, y), role))
        else:
            shapes.append(Line(((x, y), (x + 20, y)), role, 2.6 if role == "curve" else 1.2))
        shapes.append(Label((x + 27, y), name))
        x += 40 + 6.5 * len(name)
    return shapes


def _crossing(axes: _Axes, photo: PhotoScore, level: float) -> Dot:
    """The model's place: on the curve, or beside it as a ring where the two do not meet."""
    meets = not photo.worth.censored and photo.loss <= photo.start_loss
    return Dot((axes.x(photo.worth.value), axes.y(level)), "model", filled=meets)


class _Axes:
    """Where iterations and losses lie: both on log scales, with iteration 0 at the left edge."""

    def __init__(
        self, width: int, height: int, iterations: int, low: float, high: float, *, top: float = 16
    ) -> None:
        self.left, self.right = 58.0, width - 18.0
        self.top, self.bottom = float(top), height - 48.0
        self.iterations = iterations
        # A flat or a zero loss still needs some height.
        low = max(low, high * 1e-6, 1e-12)
        high = max(high, low * 1.2)
        room = 0.08 * math.log(high / low)
        self.low, self.high = low * math.exp(-room), high * math.exp(room)

    def x(self, iteration: float) -> float:
        share = math.log1p(iteration) / math.log1p(self.iterations)
        return self.left + (self.right - self.left) * min(share, 1.0)

    def y(self, loss: float) -> float:
        share = math.log(max(loss, self.low) / self.low) / math.log(self.high / self.low)
        return self.bottom - (self.bottom - self.top) * share

    def curve(self, losses: np.ndarray) -> tuple[Point, ...]:
        return tuple((self.x(at), self.y(float(loss))) for at, loss in enumerate(losses))

    def frame(self, number, x_title: str) -> list[Line | Dot | Label]:
        shapes: list[Line | Dot | Label] = []
        for tick in log_ticks(self.low, self.high):
            y = self.y(tick)
            shapes.append(Line(((self.left, y), (self.right, y)), "grid"))
            shapes.append(Label((self.left - 8, y), number(tick), anchor="end"))
        for tick in self._iteration_ticks():
            x = self.x(tick)
            shapes.append(Line(((x, self.bottom), (x, self.bottom + 4)), "muted"))
            shapes.append(Label((x, self.bottom + 15), str(tick), anchor="middle"))
        shapes.append(Line(((self.left, self.bottom), (self.right, self.bottom)), "muted"))
        shapes.append(
            Label(((self.left + self.right) / 2, self.bottom + 35), x_title, anchor="middle")
        )
        return shapes

    def _iteration_ticks(self) -> list[int]:
        """0, the end, and of 1, 2, 5, 10, ... those that leave room for the labels."""
        ticks, decade = [0], 1
        while decade <= self.iterations:
            ticks += [step * decade for step in (1, 2, 5) if step * decade < self.iterations]
            decade *= 10
        kept = [ticks[0]]
        for tick in ticks[1:]:
            after, before_end = self.x(tick) - self.x(kept[-1]), self.right - self.x(tick)
            if after >= 22 and before_end >= 30:
                kept.append(tick)
        return [*kept, self.iterations]


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Returns round numbers between two positive ones: few, and close to even on a log scale."""
    found: list[float] = []
    for mantissas in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)):
        ticks = [
            mantissa * 10.0**decade
            for decade in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for mantissa in mantissas
            if low <= mantissa * 10.0**decade <= high
        ]
        if found and len(ticks) > most:
            break
        found = ticks
    return found


def _short_number(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


# --- writers -------------------------------------------------------------------------------------


def chart_css() -> str:
    """Returns the style sheet that `to_svg` counts on: a colour per role, for either theme."""
    light = "".join(f"--{role}:{colours[0]};" for role, colours in COLOURS.items())
    dark = "".join(f"--{role}:{colours[1]};" for role, colours in COLOURS.items())
    return (
        f":root{{{light}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        "svg.chart{display:block;width:100%;height:auto;font-family:inherit}"
    )


def to_svg(chart: Chart) -> str:
    """Returns a chart as an SVG element for a page that has `chart_css`."""
    parts = [
        f'<svg class="chart" viewBox="0 0 {chart.width} {chart.height}" role="img" '
        f'aria-label="{html.escape(chart.description)}">'
    ]
    for shape in chart.shapes:
        colour = f"var(--{shape.role})"
        if isinstance(shape, Line):
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
            dash = f' stroke-dasharray="{_DASH[0]:g} {_DASH[1]:g}"' if shape.dashed else ""
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" '
                f'stroke-width="{shape.width:g}" stroke-linejoin="round"{dash}/>'
            )
        elif isinstance(shape, Dot):
            fill = colour if shape.filled else "var(--paper)"
            parts.append(
                f'<circle cx="{shape.at[0]:.1f}" cy="{shape.at[1]:.1f}" r="{shape.radius:g}" '
                f'fill="{fill}" stroke="{colour}" stroke-width="2"/>'
            )
        else:
            weight = ' font-weight="600"' if shape.bold else ""
            parts.append(
                f'<text x="{shape.at[0]:.1f}" y="{shape.at[1] + _CAP_HEIGHT * shape.size:.1f}" '
                f'fill="{colour}" font-size="{shape.size:g}" text-anchor="{shape.anchor}"{weight}>'
                f"{html.escape(shape.text)}</text>"
            )
    return "".join([*parts, "</svg>"])


def to_picture(charts: Sequence[Chart], *, scale: int = 2) -> np.ndarray:
    """Draws charts below each other, in the light colours.

    Args:
      charts: At least one.
      scale: Pixels of the picture per pixel of the layout.

    Returns:
      uint8 [H, W, 3].
    """
    zoom = scale * _SUPERSAMPLING
    width, height = max(chart.width for chart in charts), sum(chart.height for chart in charts)
    canvas = Image.new("RGB", (width * zoom, height * zoom), _PAPER)
    draw = ImageDraw.Draw(canvas)
    top = 0
    for chart in charts:
        for shape in chart.shapes:
            _draw(draw, shape, top, zoom)
        top += chart.height
    smooth = canvas.resize((width * scale, height * scale), Image.Resampling.BOX)
    return np.array(smooth)


def _draw(draw: ImageDraw.ImageDraw, shape: Line | Dot | Label, top: float, zoom: int) -> None:
    colour = COLOURS[shape.role][0]

    def place(point: Point) -> Point:
        return point[0] * zoom, (point[1] + top) * zoom

    if isinstance(shape, Line):
        width = max(1, round(shape.width * zoom))
        for piece in _dashes(shape.points) if shape.dashed else [shape.points]:
            draw.line([place(point) for point in piece], colour, width, joint="curve")
    elif isinstance(shape, Dot):
        x, y = place(shape.at)
        radius = (shape.radius + 1) * zoom
        fill = colour if shape.filled else _PAPER
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill, colour, width=2 * zoom)
    else:
        font = ImageFont.load_default(shape.size * zoom)
        anchor = {"start": "l", "middle": "m", "end": "r"}[shape.anchor] + "s"
        x, y = place((shape.at[0], shape.at[1] + _CAP_HEIGHT * shape.size))
        stroke = zoom * shape.size / 60 if shape.bold else 0
        draw.text((x, y), shape.text, colour, font, anchor, stroke_width=stroke)


def _dashes(points: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Cuts the straight line between the first and the last point into dashes."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    length = math.hypot(x1 - x0, y1 - y0)
    pieces = []
    start = 0.0
    while start < length:
        end = min(start + _DASH[0], length)
        pieces.append(
            tuple(
                (x0 + (x1 - x0) * at / length, y0 + (y1 - y0) * at / length) for at in (start, end)
            )
        )
        start += sum(_DASH)
    return pieces
