"""Marks and lines of a panel, for the tests of figures."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes


def dots(axes: Axes, color: str | None = None) -> tuple[list[float], list[float]]:
    """Abscissas and ordinates of the dots, ascending."""
    lines = [
        line
        for line in axes.lines
        if line.get_marker() == "." and color in (None, line.get_color())
    ]
    points = sorted(point for line in lines for point in zip(*line.get_data(), strict=True))
    return [rank for rank, _ in points], [value for _, value in points]


def straight(axes: Axes, style_: str) -> list[Any]:
    """Lines of a style."""
    return [line for line in axes.lines if line.get_linestyle() == style_]


def verticals(axes: Axes, linestyle: str) -> list[float]:
    """Abscissas of the vertical lines of a style, ascending."""
    lines = [line for line in axes.lines if line.get_linestyle() == linestyle]
    return sorted(line.get_xdata()[0] for line in lines if len(set(line.get_xdata())) == 1)
