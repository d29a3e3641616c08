"""Figure 1: every eigenvalue, and the largest ones, at each step."""

import numpy as np
import pandas as pd
import pytest
from figure_marks import dots, straight
from matplotlib.figure import Figure

from hesspipe.figures import endpoints
from hesspipe.plots import style
from hesspipe.tables.store import Result

SIZE = 40


def spectrum(step: int) -> Result:
    """Ranks are not in order, and eigenvalues differ between steps."""
    eigenvalues = (0.01 if step == 5000 else 1.0) * np.linspace(-1.0, 3.0, SIZE)
    table = pd.DataFrame({"rank": range(SIZE), "eigenvalue": eigenvalues}).iloc[::-1]
    return Result("spectrum", table, {"step": step})


SPECTRA = [spectrum(0), spectrum(5000)]


def panels(figure: Figure, num_columns: int) -> np.ndarray:
    return np.array(figure.axes).reshape(-1, num_columns)


def test_endpoints_shows_every_eigenvalue_and_the_largest():
    rows = panels(endpoints.make_figure(SPECTRA, {"num_largest": 7}), 2)
    for (left, right), step in zip(rows, (0, 5000), strict=True):
        expected = spectrum(step).table.sort_values("rank")
        for axes, part in ((left, expected), (right, expected.tail(7))):
            ranks, eigenvalues = dots(axes)
            assert ranks == part["rank"].tolist()
            assert eigenvalues == part["eigenvalue"].tolist()


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_endpoints_grows_by_a_row_with_each_step(num_steps):
    spectra = [spectrum(step) for step in range(num_steps)]
    figure = endpoints.make_figure(spectra, {"num_largest": 7})
    assert panels(figure, 2).shape == (num_steps, 2)
    assert figure.get_size_inches().tolist() == [5.5, 1.75 * num_steps + 0.2]


def test_endpoints_names_its_axes():
    rows = panels(endpoints.make_figure(SPECTRA, {"num_largest": 7}), 2)
    assert [[axes.get_ylabel() for axes in row] for row in rows] == [
        [r"eigenvalue $\lambda$ (nats)", ""]
    ] * 2
    assert [[axes.get_xlabel() for axes in row] for row in rows] == [
        ["", ""],
        ["rank of the eigenvalue"] * 2,
    ]


@pytest.mark.parametrize(
    ("steps", "titles"),
    [
        ([0, 5000], ["random initial point", "after 5,000 steps"]),
        ([5000, 0], ["after 5,000 steps", "after 0 steps"]),
        ([5000], ["after 5,000 steps"]),
    ],
)
def test_endpoints_says_which_step_a_row_shows(steps, titles):
    spectra = [spectrum(step) for step in steps]
    rows = panels(endpoints.make_figure(spectra, {"num_largest": 7}), 2)
    assert [left.get_title("left") for left, _ in rows] == [
        f"{title}, all 40 eigenvalues" for title in titles
    ]
    assert {right.get_title("left") for _, right in rows} == {"the 7 largest"}


def test_endpoints_marks_zero_behind_the_eigenvalues():
    for axes in endpoints.make_figure(SPECTRA, {"num_largest": 7}).axes:
        (zero,) = straight(axes, "-")
        assert list(zero.get_ydata()) == [0.0, 0.0]
        assert zero.get_zorder() < min(line.get_zorder() for line in axes.lines[1:])
        assert len(dots(axes, style.MATRIX_COLORS["hessian"])[0]) == len(dots(axes)[0])
        assert axes.get_yscale() == "linear"


def test_endpoints_writes_thousands_with_a_comma():
    axis = endpoints.make_figure(SPECTRA, {"num_largest": 7}).axes[0].xaxis
    assert axis.get_major_formatter()(4270, 0) == "4,270"
