"""Overlaps with class-mean gradients: a panel for each network."""

from __future__ import annotations

import pandas as pd
from figure_marks import verticals

from hesspipe.figures import directions
from hesspipe.plots import style
from hesspipe.tables.store import Result


def network(num_classes: int) -> Result:
    order = range(1, num_classes + 3)
    table = pd.DataFrame({"order": order, "own": 0.9, "every": 1.0, "shared": 0.5, "flat": 0.01})
    return Result("directions", table, {"num_classes": num_classes})


def test_directions_have_a_panel_for_each_network_with_its_number_of_classes() -> None:
    names = ["a", "b", "c", "d"]
    networks = [network(number) for number in (2, 3, 4, 5)]
    figure = directions.make_figure(networks, {"labels": names})
    panels = figure.axes[:4]
    assert [axes.get_title() for axes in panels] == names
    for axes, number in zip(panels, (2, 3, 4, 5), strict=True):
        assert [line.get_ydata()[0] for line in axes.lines[:4]] == [0.9, 1.0, 0.5, 0.01]
        assert verticals(axes, "--") == [number + 0.5]
    assert not figure.axes[4].axison


def test_directions_give_equal_bytes(tmp_path) -> None:
    contents = set()
    for name in ("one", "two"):
        figure = directions.make_figure([network(3)], {"labels": ["a"]})
        style.save(figure, tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
        contents.add((tmp_path / f"{name}.pdf").read_bytes())
    assert len(contents) == 1
