"""Small plots as SVG text, for pages that must not load anything."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

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
    """What part of the plane a plot shows."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)


def plot(title: str, x_name: str, series: Sequence[Series], line: float | None = None) -> str:
    """A plot of `series` with the text `title` for readers who do not see it; `line` is a level to draw.
    Points that are not finite are left out."""
    shown = [_finite(one) for one in series]
    points = [point for one in shown for point in one.points]
    if not points:
        return "<p>Nothing to draw yet.</p>"
    frame = _frame(points, line)
    parts = [_axes(frame, x_name)]
    if line is not None:
        parts.append(_segment(frame, frame.x0, line, frame.x1, line, "level"))
    parts += [_draw(frame, one, COLOURS[place % len(COLOURS)]) for place, one in enumerate(shown)]
    body = "".join(parts)
    legend = _legend(shown) if len(shown) > 1 else ""
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg>'
        f"{legend}<figcaption>{escape(title)}</figcaption></figure>"
    )


def _finite(one: Series) -> Series:
    kept = [point for point in one.points if math.isfinite(point.y)]
    return Series(one.name, kept, one.joined)


def _frame(points: Sequence[Point], line: float | None) -> Frame:
    xs = [point.x for point in points]
    ys = [
        value for p in points for value in (p.y, p.low, p.high) if value is not None and math.isfinite(value)
    ]
    ys += [] if line is None else [line]
    pad = (max(ys) - min(ys)) * 0.06 or 0.5
    half = 0.5 if max(xs) == min(xs) else 0.0
    return Frame(min(xs) - half, max(xs) + half, min(ys) - pad, max(ys) + pad)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between `low` and `high`."""
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def _axes(frame: Frame, x_name: str) -> str:
    parts = []
    for value in ticks(frame.y0, frame.y1):
        parts.append(_segment(frame, frame.x0, value, frame.x1, value, "grid"))
        parts.append(f'<text x="{LEFT - 6}" y="{frame.y(value) + 4:.1f}" class="end">{value:.4g}</text>')
    for value in ticks(frame.x0, frame.x1, 8):
        parts.append(
            f'<text x="{frame.x(value):.1f}" y="{HEIGHT - BOTTOM + 16}" class="mid">{value:.4g}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    return "".join(parts) + f'<text x="{middle}" y="{HEIGHT - 6}" class="mid">{escape(x_name)}</text>'


def _segment(frame: Frame, x0: float, y0: float, x1: float, y1: float, kind: str, colour: str = "") -> str:
    stroke = f' stroke="{colour}"' if colour else ""
    return (
        f'<line x1="{frame.x(x0):.1f}" y1="{frame.y(y0):.1f}" x2="{frame.x(x1):.1f}" y2="{frame.y(y1):.1f}" '
        f'class="{kind}"{stroke}/>'
    )


def _draw(frame: Frame, one: Series, colour: str) -> str:
    parts = []
    if one.joined and len(one.points) > 1:
        path = " ".join(f"{frame.x(point.x):.1f},{frame.y(point.y):.1f}" for point in one.points)
        parts.append(f'<polyline points="{path}" class="curve" stroke="{colour}"/>')
    for point in one.points:
        if point.low is not None and point.high is not None and math.isfinite(point.low + point.high):
            parts.append(_segment(frame, point.x, point.low, point.x, point.high, "bar", colour))
        parts.append(
            f'<circle cx="{frame.x(point.x):.1f}" cy="{frame.y(point.y):.1f}" r="2.4" fill="{colour}"/>'
        )
    return "".join(parts)


def _legend(series: Sequence[Series]) -> str:
    items = (
        f'<li style="color:{COLOURS[place % len(COLOURS)]}">{escape(one.name)}</li>'
        for place, one in enumerate(series)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'
