"""The gallery's figures show their tables, and say what their axes are."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from hesspipe.figures import style
from hesspipe.figures.densities import densities_figure
from hesspipe.figures.layers import layers_figure
from hesspipe.figures.ordered import ordered_figure
from hesspipe.figures.outliers import outliers_figure
from hesspipe.figures.over_training import over_training_figure
from hesspipe.figures.overlay import overlay_figure

VALUES = np.linspace(-1.0, 3.0, 7)
EIGENVALUE = r"eigenvalue $\lambda$ (units of the loss)"
MAGNITUDE = r"magnitude $|\lambda|$ (units of the loss)"
DENSITY = r"density $\phi$ (1 / units of the loss)"


def curve(scale: float, **labels: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **labels, "value": VALUES, "density": scale * np.exp(-VALUES**2),
            "standard_error": 0.1 * scale, "one_eigenvalue": 0.01 * scale,
        }
    )  # fmt: skip


def ordered_table() -> pd.DataFrame:
    """Two steps, ranks out of order, something in the middle that counts as zero."""
    eigenvalues = np.array([-2.0, -0.5, 1e-17, 0.25, 1.0, 4.0])
    tables = [
        pd.DataFrame(
            {
                "step": step,
                "num_negative": 2,
                "num_zero": 1,
                "rank": range(6),
                "eigenvalue": step * eigenvalues,
            }
        )
        for step in (10, 20)
    ]
    return pd.concat([table.iloc[::-1] for table in tables])


def ends_table() -> pd.DataFrame:
    """H, G and R at two steps; what is negative in G may be zero."""
    rows = [
        {
            "matrix": matrix, "step": step, "end": end, "order": order,
            "eigenvalue": (step + 1) * (factor if end == "largest" else smallest) / order,
            "uncertainty": 1e-9,
        }
        for matrix, factor, smallest in [
            ("hessian", 3, -1), ("ggn", 2, -1e-10), ("residual", 1, -1),
        ]
        for step in (4, 0)
        for end in ("largest", "smallest")
        for order in (1, 2, 3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def line_of(axes: Axes, label: str) -> Any:
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return line


def size_of(figure: Any) -> list[float]:
    return [round(float(length), 6) for length in figure.get_size_inches()]


def test_ordered_figure_marks_every_eigenvalue_by_its_sign() -> None:
    figure = ordered_figure(ordered_table())
    for axes, step in zip(figure.axes, (10, 20), strict=True):
        positive, negative = line_of(axes, "positive"), line_of(axes, "negative")
        assert dict(zip(*positive.get_data(), strict=True)) == {
            3: 0.25 * step, 4: 1.0 * step, 5: 4.0 * step,
        }  # fmt: skip
        assert dict(zip(*negative.get_data(), strict=True)) == {0: 2.0 * step, 1: 0.5 * step}
        assert positive.get_color() != negative.get_color()
        assert axes.get_yscale() == "log"
        assert axes.get_ylabel() == MAGNITUDE
        assert axes.get_title("left") == f"step {step}: 6 eigenvalues, 2 negative, 1 zero"
    assert figure.axes[-1].get_xlabel() == "rank of the eigenvalue"
    assert size_of(figure) == [5.5, 4.8]


def test_densities_figure_shows_each_density_with_a_band_of_one_standard_error() -> None:
    table = pd.concat([curve(2.0, matrix="hessian"), curve(1.0, matrix="ggn")])
    figure = densities_figure(table)
    (axes,) = figure.axes
    for matrix, band in zip(("hessian", "ggn"), axes.collections, strict=True):
        expected = table[table["matrix"] == matrix]
        line = line_of(axes, style.MATRIX_LABELS[matrix])
        np.testing.assert_array_equal(line.get_ydata(), expected["density"])
        np.testing.assert_array_equal(line.get_xdata(), VALUES)
        assert line.get_color() == style.MATRIX_COLORS[matrix]
        assert isinstance(band, PolyCollection)
        corners = band.get_paths()[0].vertices
        for sign in (-1, 1):
            edge = expected["density"] + sign * expected["standard_error"]
            assert set(edge.round(12)) <= {round(float(y), 12) for y in corners[:, 1]}
    single = line_of(axes, "peak of a single eigenvalue")
    assert set(single.get_ydata()) == {0.01}
    assert axes.get_ylim() == pytest.approx((0.001, 10 * table["density"].max()))
    assert (axes.get_yscale(), axes.get_xlabel(), axes.get_ylabel()) == (
        "log", EIGENVALUE, DENSITY,
    )  # fmt: skip
    assert size_of(figure) == [5.5, 2.8]


@pytest.mark.parametrize(("num_groups", "num_rows"), [(1, 1), (3, 2), (4, 2)])
def test_layers_figure_has_a_panel_for_each_group(num_groups: int, num_rows: int) -> None:
    groups = [f"g{number}" for number in range(num_groups)]
    table = pd.concat(
        curve(number + 1.0, group=group, matrix="ggn", num_parameters=1000 * (number + 1))
        for number, group in enumerate(groups)
    )
    figure = layers_figure(table, {group: group.upper() for group in groups})
    shown = [axes for axes in figure.axes if axes.axison]
    assert len(figure.axes) == 2 * num_rows
    assert [axes.get_title("left") for axes in shown] == [
        f"G{number} ({number + 1},000)" for number in range(num_groups)
    ]
    for number, axes in enumerate(shown):
        (line,) = [line for line in axes.lines if len(line.get_xdata()) == len(VALUES)]
        np.testing.assert_array_equal(line.get_ydata(), (number + 1) * np.exp(-(VALUES**2)))
        assert line.get_color() == style.MATRIX_COLORS["ggn"]
        assert axes.get_ylim()[0] == pytest.approx(0.001 * (number + 1))
    assert (figure.get_supxlabel(), figure.get_supylabel()) == (EIGENVALUE, DENSITY)
    assert size_of(figure) == [5.5, round(1.6 * num_rows + 0.4, 6)]


def test_overlay_figure_shows_both_ends_of_each_matrix_with_their_own_sign() -> None:
    table = ends_table()
    figure = overlay_figure(table[table["step"] == 0])
    left, right = figure.axes
    for matrix, factor in (("hessian", 3), ("ggn", 2), ("residual", 1)):
        label = style.MATRIX_LABELS[matrix]
        assert list(line_of(left, label).get_data()[1]) == [factor, factor / 2, factor / 3]
        negative = [] if matrix == "ggn" else [1.0, 1 / 2, 1 / 3]
        assert list(line_of(right, label).get_data()[1]) == negative
        assert line_of(right, label).get_color() == style.MATRIX_COLORS[matrix]
    assert (left.get_yscale(), left.get_ylabel()) == ("log", MAGNITUDE)
    assert left.get_ylim() == right.get_ylim()
    assert [axes.get_title("left") for axes in (left, right)] == ["largest", "most negative"]
    assert size_of(figure) == [5.5, 2.8]


def test_outliers_figure_colors_what_lies_above_each_rules_cutoff() -> None:
    table = pd.DataFrame({"order": [1, 2, 3, 4], "eigenvalue": [8.0, 4.0, 0.5, 0.25]})
    counts = pd.DataFrame({"rule": ["gap", "ratio"], "num_outliers": [1, 2], "cutoff": [6.0, 1.5]})
    figure = outliers_figure(table, counts)
    for axes, cutoff, number in zip(figure.axes, (6.0, 1.5), (1, 2), strict=True):
        above, below, line = axes.lines
        assert above.get_color() == style.OUTLIER_COLOR != below.get_color()
        assert list(above.get_ydata()) == [8.0, 4.0][:number]
        assert list(below.get_ydata()) == [8.0, 4.0, 0.5, 0.25][number:]
        assert list(line.get_ydata()) == [cutoff, cutoff]
    assert [axes.get_title() for axes in figure.axes] == [
        "gap: 1 above the cutoff",
        "ratio: 2 above the cutoff",
    ]
    assert (figure.axes[0].get_yscale(), figure.axes[0].get_ylabel()) == ("log", EIGENVALUE)
    assert figure.get_supxlabel() == "order of the largest eigenvalues"
    assert size_of(figure) == [5.5, 2.6]


def test_over_training_figure_follows_each_order_through_the_steps() -> None:
    table = ends_table()
    figure = over_training_figure(table[table["matrix"] == "hessian"])
    left, right = figure.axes
    for order, line in enumerate(left.lines, start=1):
        assert list(line.get_xdata()) == [0, 4]
        np.testing.assert_allclose(line.get_ydata(), [3 / order, 15 / order])
    for order, line in enumerate(right.lines, start=1):
        np.testing.assert_allclose(line.get_ydata(), [1 / order, 5 / order])
    shades = [line.get_alpha() for line in left.lines]
    assert shades == sorted(shades, reverse=True)
    assert min(shades) > 0
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert left.get_ylabel() == MAGNITUDE
    assert [axes.get_title("left") for axes in figure.axes] == [
        "the 3 largest",
        "the 3 most negative",
    ]
    assert {axes.get_xlabel() for axes in figure.axes} == {"step of training"}
    assert size_of(figure) == [5.5, 2.8]


def test_over_training_figure_leaves_out_what_is_not_negative() -> None:
    table = ends_table()
    figure = over_training_figure(table[table["matrix"] == "ggn"])
    assert all(len(line.get_xdata()) == 0 for line in figure.axes[1].lines)


def test_gallery_does_not_change_global_settings() -> None:
    with mpl.rc_context({"font.size": 31.0, "lines.marker": "x"}):
        before = dict(mpl.rcParams)
        ordered_figure(ordered_table())
        overlay_figure(ends_table())
        over_training_figure(ends_table())
        densities_figure(curve(1.0, matrix="hessian"))
        assert dict(mpl.rcParams) == before
