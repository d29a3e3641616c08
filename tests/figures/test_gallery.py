"""Gallery figures: data, labels and sizes in the Figure object."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from hesspipe.figures import densities, layers, ordered, outliers, over_training, overlay
from hesspipe.plots import style
from hesspipe.tables.store import Result

VALUES = np.linspace(-1.0, 3.0, 7)
EIGENVALUE = r"eigenvalue $\lambda$ (units of the loss)"
MAGNITUDE = r"magnitude $|\lambda|$ (units of the loss)"
DENSITY = r"density $\phi$ (1 / units of the loss)"


def curve(scale: float, **labels: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **labels, "value": VALUES, "density": scale * np.exp(-VALUES**2),
            "standard_error": 0.1 * scale, "one_eigenvalue": 0.01 * scale,
            "low": scale * np.exp(-VALUES**2) / 2, "high": scale * np.exp(-VALUES**2) * 3,
        }
    )  # fmt: skip


def curves(*parts: pd.DataFrame) -> list[Result]:
    return [Result("curves", pd.concat(parts), {})]


def whole_spectra() -> list[Result]:
    """Two steps, ranks out of order, something in the middle that counts as zero."""
    eigenvalues = np.array([-2.0, -0.5, 1e-17, 0.25, 1.0, 4.0])
    return [
        Result(
            "spectrum",
            pd.DataFrame({"rank": range(6), "eigenvalue": step * eigenvalues}).iloc[::-1],
            RUN | {"step": step, "matrix": "hessian", "num_negative": 2, "num_zero": 1},
        )
        for step in (10, 20)
    ]


def eigenpairs(matrix: str, step: int) -> Result:
    """Three at each end; the smallest of G count as zero."""
    largest, smallest = {"hessian": (3, -1), "ggn": (2, -1e-10), "residual": (1, -1)}[matrix]
    rows = [("smallest", order - 1, smallest, order) for order in (1, 2, 3)]
    rows += [("largest", 10 - order, largest, order) for order in (3, 2, 1)]
    table = pd.DataFrame(
        {
            "end": end, "rank": rank, "eigenvalue": (step + 1) * factor / order,
            "residual_norm": 1e-9,
        }
        for end, rank, factor, order in rows
    )  # fmt: skip
    return Result("eigenpairs", table, RUN | {"step": step, "matrix": matrix})


RUN = {"experiment": "mine", "seed": 0, "num_classes": 3, "num_parameters": 10}
THREE = {"num_largest": 3, "num_smallest": 3}


def line_of(axes: Axes, label: str) -> Any:
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return line


def size_of(figure: Any) -> list[float]:
    return [round(float(length), 6) for length in figure.get_size_inches()]


def test_ordered_marks_every_eigenvalue_by_its_sign() -> None:
    figure = ordered.make_figure(whole_spectra(), {})
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


def test_densities_shows_each_density_in_the_band_of_its_intervals() -> None:
    table = pd.concat([curve(2.0, matrix="hessian"), curve(1.0, matrix="ggn")])
    figure = densities.make_figure(curves(table), {})
    (axes,) = figure.axes
    for matrix, band in zip(("hessian", "ggn"), axes.collections, strict=True):
        expected = table[table["matrix"] == matrix]
        line = line_of(axes, style.MATRIX_LABELS[matrix])
        np.testing.assert_array_equal(line.get_ydata(), expected["density"])
        np.testing.assert_array_equal(line.get_xdata(), VALUES)
        assert line.get_color() == style.MATRIX_COLORS[matrix]
        assert isinstance(band, PolyCollection)
        corners = band.get_paths()[0].vertices
        for bound in ("low", "high"):
            edge = expected[bound]
            assert set(edge.round(12)) <= {round(float(y), 12) for y in corners[:, 1]}
    single = line_of(axes, "peak of a single eigenvalue")
    assert set(single.get_ydata()) == {0.01}
    assert axes.get_ylim() == pytest.approx((0.001, 10 * table["density"].max()))
    assert (axes.get_yscale(), axes.get_xlabel(), axes.get_ylabel()) == (
        "log", EIGENVALUE, DENSITY,
    )  # fmt: skip
    assert size_of(figure) == [5.5, 2.8]


@pytest.mark.parametrize(("num_groups", "num_rows"), [(1, 1), (3, 2), (4, 2)])
def test_layers_has_a_panel_for_each_group(num_groups: int, num_rows: int) -> None:
    groups = [f"g{number}" for number in range(num_groups)]
    table = pd.concat(
        curve(number + 1.0, group=group, matrix="ggn", num_parameters=1000 * (number + 1))
        for number, group in enumerate(groups)
    )
    figure = layers.make_figure(
        curves(table), {"titles": {group: group.upper() for group in groups}}
    )
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


def test_overlay_shows_both_ends_of_each_matrix_with_its_sign() -> None:
    pairs = [eigenpairs(matrix, 0) for matrix in ("hessian", "ggn", "residual")]
    figure = overlay.make_figure(pairs, THREE)
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


def test_outliers_colors_what_lies_above_each_rules_cutoff() -> None:
    table = pd.DataFrame({"rank": range(5), "eigenvalue": [0.125, 0.25, 0.5, 4.0, 8.0]})
    columns = ["step", "matrix", "rule", "num_outliers", "cutoff"]
    rows = [(9, "ggn", "gap", 1, 6.0), (9, "ggn", "ratio", 2, 1.5)]
    rows += [(9, "hessian", "gap", 3, 0.3), (0, "ggn", "gap", 4, 0.2)]
    results = [
        Result("spectrum", table, RUN | {"step": 9, "matrix": "ggn", "tolerance": 1e-15}),
        Result("outliers", pd.DataFrame(rows, columns=columns), RUN),
    ]
    figure = outliers.make_figure(results, {"step": 9, "matrix": "ggn", "num_largest": 4})
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


def test_over_training_follows_each_order_through_the_steps() -> None:
    figure = over_training.make_figure([eigenpairs("hessian", step) for step in (4, 0)], THREE)
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


def test_over_training_leaves_out_what_is_not_negative() -> None:
    figure = over_training.make_figure([eigenpairs("ggn", step) for step in (4, 0)], THREE)
    assert all(len(line.get_xdata()) == 0 for line in figure.axes[1].lines)


def test_gallery_does_not_change_global_settings() -> None:
    with mpl.rc_context({"font.size": 31.0, "lines.marker": "x"}):
        before = dict(mpl.rcParams)
        ordered.make_figure(whole_spectra(), {})
        pairs = [eigenpairs("hessian", step) for step in (0, 4)]
        overlay.make_figure(pairs[:1], THREE)
        over_training.make_figure(pairs, THREE)
        densities.make_figure(curves(curve(1.0, matrix="hessian")), {})
        assert dict(mpl.rcParams) == before
