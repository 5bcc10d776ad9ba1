"""A few SVG shapes and an axis, for the report's charts: text in, text out.

Colours and fonts are CSS classes that the page defines, so that charts follow its light or dark dress.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape


def number(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" class="{css}"/>'


def box(x: float, y: float, width: float, height: float, css: str, title: str = "", radius: float = 0) -> str:
    """A rectangle; `title` appears when one points at it."""
    shape = f'x="{number(x)}" y="{number(y)}" width="{number(max(width, 0))}" height="{number(height)}"'
    tip = f"<title>{escape(title)}</title>" if title else ""
    return f'<rect {shape} rx="{number(radius)}" class="{css}">{tip}</rect>'


def dot(x: float, y: float, radius: float, css: str) -> str:
    """A filled circle."""
    return f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" class="{css}"/>'


def text(x: float, y: float, content: str, css: str = "label", anchor: str = "start") -> str:
    """A line of text; `anchor` is start, middle or end."""
    where = f'x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"'
    return f'<text {where} class="{css}">{escape(content)}</text>'


def path(points: Iterable[tuple[float, float]], css: str) -> str:
    """A line through all points."""
    steps = " L".join(f"{number(x)} {number(y)}" for x, y in points)
    return f'<path d="M{steps}" class="{css}"/>' if steps else ""


def drawing(width: float, height: float, description: str, parts: Iterable[str]) -> str:
    """A whole picture that scales with the page; `description` is for those who cannot see it."""
    head = f'<svg viewBox="0 0 {number(width)} {number(height)}" role="img" aria-label="{escape(description)}">'
    return head + "".join(parts) + "</svg>"


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to coordinates, linearly."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The coordinate of a value."""
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether a value lies on the scale."""
        return self.low <= value <= self.high

    def ticks(self, about: int) -> list[float]:
        """About so many round values on the scale."""
        raw = (self.high - self.low) / max(about, 1)
        if raw <= 0:
            return [self.low]
        magnitude = 10 ** math.floor(math.log10(raw))
        step = next((f * magnitude for f in (1, 2, 5) if f * magnitude >= raw), 10 * magnitude)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def tick_label(value: float) -> str:
    """A tick's value without needless digits."""
    return f"{value:.6g}" if abs(value) > 1e-9 else "0"
