"""Small plots as inline SVG: steps over time. Pure; every text is escaped; colours are the page's CSS variables."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 30
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)
"""Seconds between ticks of a time axis."""


@dataclass(frozen=True, slots=True)
class Line:
    """Points (seconds, value), each holding until the next; `kind` is a CSS class."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line with a word, or with `until` a shaded span."""

    at: float
    text: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """From seconds and values to places on the paper."""

    seconds: float
    top: float

    def x(self, at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(at / self.seconds, 0.0), 1.0)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(value / self.top, 0.0), 1.0)


def plot(lines: Sequence[Line], seconds: float, *, percent: bool, marks: Sequence[Mark] = (), label: str) -> str:
    """An SVG of these lines over 0…`seconds`; `label` says in words what it shows. Values are shares (`percent`) or counts."""
    most = max((value for line in lines for _, value in line.points), default=0.0)
    scale = Scale(max(seconds, 1.0), 1.0 if percent else nice_top(most * 1.2 if marks else most))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
        *_grid(scale, percent),
        *(_mark(scale, mark, place) for place, mark in enumerate(marks)),
        *(f'<path class="line {line.kind}" d="{step_path(line.points, scale)}"/>' for line in lines if line.points),
        "</svg>",
    ]
    return "".join(parts)


def step_path(points: Sequence[tuple[float, float]], scale: Scale) -> str:
    """Steps: a value holds until the next is known, and the last one to the edge."""
    first_at, first = points[0]
    path = [f"M{scale.x(first_at):.1f} {scale.y(first):.1f}"]
    for at, value in points[1:]:
        if at > scale.seconds:
            break
        path.append(f"H{scale.x(at):.1f}V{scale.y(value):.1f}")
    path.append(f"H{scale.x(scale.seconds):.1f}")
    return "".join(path)


def nice_top(most: float) -> float:
    """The least 1, 2, 2.5 or 5 × 10^n that is not below `most` (at least 4, so that quarter ticks are whole or halves)."""
    if most <= 4:
        return 4.0
    size = 1.0
    while size * 10 < most:
        size *= 10
    return next(size * step for step in (1, 2, 2.5, 5, 10) if size * step >= most)


def time_ticks(seconds: float, most: int = 8) -> list[float]:
    """Round times, at most `most` + 1 of them, beginning with 0."""
    step = next(
        (step for step in _STEPS if seconds / step <= most), _STEPS[-1] * max(1, round(seconds / _STEPS[-1] / most))
    )
    return [float(n * step) for n in range(int(seconds / step) + 1)]


def said_time(at: float) -> str:
    """`5 s`, `2 min`, `1 h 30 min`."""
    if at < 60 or (at % 60 and at < 300):
        return f"{at:g} s"
    minutes = round(at / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def said_count(n: float) -> str:
    """Four characters or so: `950`, `12 k`, `1.5 M`."""
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return f"{n:g}"


def _grid(scale: Scale, percent: bool) -> list[str]:
    parts = []
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = part * scale.top
        y = scale.y(value)
        text = f"{part:.0%}".replace("%", " %") if percent else said_count(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    ticks = time_ticks(scale.seconds)
    for at in ticks:
        x = scale.x(at)
        anchor = "end" if x > WIDTH - RIGHT - 20 else "middle"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="{anchor}">{said_time(at)}</text>')
    return parts


def _mark(scale: Scale, mark: Mark, place: int) -> str:
    x = scale.x(mark.at)
    if mark.until is not None:
        width = max(scale.x(mark.until) - x, 2.0)
        return f'<rect class="span" x="{x:.1f}" y="{TOP}" width="{width:.1f}" height="{HEIGHT - TOP - BOTTOM}"/>'
    line = f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    end = x > WIDTH - 90
    y = TOP + 10 + 12 * (place % 3)  # names of stages close together stand below each other
    return line + (
        f'<text class="mark-text" x="{x + (-4 if end else 4):.1f}" y="{y}" text-anchor="{"end" if end else "start"}">'
        f"{escape(mark.text)}</text>"
    )
