"""Small plots as SVG text, for pages that must not load anything."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Self

WIDTH, HEIGHT = 640, 230
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 40
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#718096", "#975a16", "#1a202c")


@dataclass(frozen=True, slots=True)
class Point:
    """A value at `x`, with an interval where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one name, joined by a line where `joined`."""

    name: str
    points: Sequence[Point]
    joined: bool = True


@dataclass(frozen=True, slots=True)
class Frame:
    """The part of the plane that a plot shows, from x0 to x1 and from y0 to y1, and the drawing in it."""

    x0: float
    x1: float
    y0: float
    y1: float

    @classmethod
    def around(cls, points: Sequence[Point], line: float | None) -> Self:
        """Return the frame that shows these points, their intervals and the level `line`."""
        xs = [point.x for point in points]
        values = [value for point in points for value in (point.y, point.low, point.high)]
        ys = [value for value in values if value is not None and math.isfinite(value)]
        ys += [] if line is None else [line]
        # a frame needs some width and height, even around a single point
        pad = (max(ys) - min(ys)) * 0.06 or 0.5
        half = 0.5 if max(xs) == min(xs) else 0.0
        return cls(min(xs) - half, max(xs) + half, min(ys) - pad, max(ys) + pad)

    def x(self, value: float) -> float:
        """Return the pixels from the left at `value`."""
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the pixels from the top at `value`."""
        return HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)

    def segment(
        self, start: tuple[float, float], end: tuple[float, float], kind: str, colour: str = ""
    ) -> str:
        """Return a straight line between two points, of the CSS class `kind`."""
        stroke = f' stroke="{colour}"' if colour else ""
        return (
            f'<line x1="{self.x(start[0]):.1f}" y1="{self.y(start[1]):.1f}" '
            f'x2="{self.x(end[0]):.1f}" y2="{self.y(end[1]):.1f}" class="{kind}"{stroke}/>'
        )

    def level(self, y: float, kind: str) -> str:
        """Return a line at the height `y` through the whole frame."""
        return self.segment((self.x0, y), (self.x1, y), kind)

    def axes(self, x_name: str) -> str:
        """Return the grid with its numbers, and the name of the horizontal axis."""
        parts = []
        for value in ticks(self.y0, self.y1):
            parts.append(self.level(value, "grid"))
            parts.append(f'<text x="{LEFT - 6}" y="{self.y(value) + 4:.1f}" class="end">{value:.4g}</text>')
        below = HEIGHT - BOTTOM + 16
        for value in ticks(self.x0, self.x1, 8):
            parts.append(f'<text x="{self.x(value):.1f}" y="{below}" class="mid">{value:.4g}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        return "".join(parts) + f'<text x="{middle}" y="{HEIGHT - 6}" class="mid">{escape(x_name)}</text>'

    def curve(self, series: Series, colour: str) -> str:
        """Return the points of a series with their intervals, and the line that joins them."""
        parts = []
        if series.joined and len(series.points) > 1:
            path = " ".join(f"{self.x(point.x):.1f},{self.y(point.y):.1f}" for point in series.points)
            parts.append(f'<polyline points="{path}" class="curve" stroke="{colour}"/>')
        for point in series.points:
            if point.low is not None and point.high is not None and math.isfinite(point.low + point.high):
                parts.append(self.segment((point.x, point.low), (point.x, point.high), "bar", colour))
            centre = f'cx="{self.x(point.x):.1f}" cy="{self.y(point.y):.1f}"'
            parts.append(f'<circle {centre} r="2.4" fill="{colour}"/>')
        return "".join(parts)


def plot(title: str, x_name: str, series: Sequence[Series], line: float | None = None) -> str:
    """Return a plot of `series`. `title` is its caption, also for readers who do not see the plot; `line` is
    a level to draw. Points that are not finite are left out."""
    finite = [
        Series(curve.name, [point for point in curve.points if math.isfinite(point.y)], curve.joined)
        for curve in series
    ]
    points = [point for curve in finite for point in curve.points]
    if not points:
        return "<p>Nothing to draw yet.</p>"
    frame = Frame.around(points, line)
    coloured = [(curve, COLOURS[place % len(COLOURS)]) for place, curve in enumerate(finite)]
    parts = [frame.axes(x_name)]
    if line is not None:
        parts.append(frame.level(line, "level"))
    parts += [frame.curve(curve, colour) for curve, colour in coloured]
    items = [f'<li style="color:{colour}">{escape(curve.name)}</li>' for curve, colour in coloured]
    legend = f'<ul class="legend">{"".join(items)}</ul>' if len(items) > 1 else ""
    drawing = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
    return f"<figure>{drawing}{legend}<figcaption>{escape(title)}</figcaption></figure>"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return about as many round numbers between `low` and `high`."""
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]
