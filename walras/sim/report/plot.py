"""Line plots as inline SVG, drawn with nothing but text; colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from walras.sim.report.axes import Scale, linear, number, spanning

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 12, 44
COLOURS = 10  # classes c0 to c9 of the style sheet

Points = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Axes:
    """What stands at the two axes. steps: values hold until the next point."""

    x_label: str
    y_label: str
    steps: bool = False


def plot(lines: Mapping[str, Points], axes: Axes, *, label: str, beside: Sequence[float] = ()) -> str:
    """One plot of some lines, in order of the colours; `label` is what a screen reader says. It is as high as
    those with the values of `beside`."""
    xs = [value for x, _ in lines.values() for value in x]
    ys = [*beside, *(value for _, y in lines.values() for value in y)]
    x_scale = spanning(xs, LEFT, WIDTH - RIGHT)
    y_scale = linear(ys, HEIGHT - BOTTOM, TOP)
    body = [_grid(x_scale, y_scale), _titles(axes)]
    body += [
        _line(x, y, x_scale, y_scale, number, name, steps=axes.steps)
        for number, (name, (x, y)) in enumerate(lines.items())
    ]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        + "".join(body)
        + "</svg>"
    )


def legend(names: Sequence[str]) -> str:
    """The names beside the colours of their lines."""
    items = (
        f'<li><svg viewBox="0 0 20 8"><path class="{_class(at)}" d="M0 4H20"/></svg>{escape(name)}</li>'
        for at, name in enumerate(names)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _grid(x_scale: Scale, y_scale: Scale) -> str:
    found = []
    for tick in x_scale.ticks():
        x = f"{x_scale.at(tick):.1f}"
        found.append(f'<path class="grid" d="M{x} {TOP}V{HEIGHT - BOTTOM}"/>')
        found.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{number(tick)}</text>')
    for tick in y_scale.ticks():
        y = y_scale.at(tick)
        found.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        found.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    return "".join(found)


def _titles(axes: Axes) -> str:
    middle_x, middle_y, below = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2, HEIGHT - 6
    return (
        f'<text class="axis" x="{middle_x}" y="{below}" text-anchor="middle">{escape(axes.x_label)}</text>'
        f'<text class="axis" transform="translate(13 {middle_y}) rotate(-90)" text-anchor="middle">'
        f"{escape(axes.y_label)}</text>"
    )


def _line(
    xs: Sequence[float],
    ys: Sequence[float],
    x_scale: Scale,
    y_scale: Scale,
    at: int,
    name: str,
    *,
    steps: bool,
) -> str:
    parts: list[str] = []
    for x, y in zip(xs, ys, strict=True):
        place = f"{x_scale.at(x):.1f}", f"{y_scale.at(y):.1f}"
        if not parts:
            parts.append(f"M{place[0]} {place[1]}")
        else:
            parts.append(f"H{place[0]}V{place[1]}" if steps else f"L{place[0]} {place[1]}")
    return f'<path class="{_class(at)}" d="{"".join(parts)}"><title>{escape(name)}</title></path>'


def _class(at: int) -> str:
    return f"line c{at % COLOURS}"
