"""Figures show the table, say what their axes are, and are saved as equal bytes."""

import struct

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from hesspipe.figures import style
from hesspipe.figures.endpoints import endpoints_figure
from hesspipe.figures.gaps import gaps_figure
from hesspipe.figures.negative_part import negative_part_figure
from hesspipe.figures.right_edge import right_edge_figure

SIZE = 40
NATS = r"eigenvalue $\lambda$ (nats)"
# The order of the panels; 2 comes first, 3 has a negative eigenvalue among the largest.
CUTOFFS = {5: 0.03, 2: 2.0, 3: 0.5}


@pytest.fixture
def endpoints_table():
    """The last step stands first, ranks are not in order, eigenvalues differ between steps."""
    tables = [
        pd.DataFrame(
            {"step": step, "rank": range(SIZE), "eigenvalue": factor * np.linspace(-1.0, 3.0, SIZE)}
        )
        for step, factor in ((0, 1.0), (5000, 0.01))
    ]
    return pd.concat([table.iloc[::-1] for table in tables])


def bulk_and_top(num_classes: int) -> np.ndarray:
    top = np.geomspace(CUTOFFS[num_classes] * 2, CUTOFFS[num_classes] * 20, num_classes - 1)
    bulk = np.linspace(-1.0, 0.9, SIZE - len(top)) * CUTOFFS[num_classes]
    return np.concatenate([bulk, top])


@pytest.fixture
def gaps_tables():
    spectra = pd.concat(
        pd.DataFrame({"experiment": f"k{k}", "rank": range(SIZE), "eigenvalue": bulk_and_top(k)})
        for k in (2, 3, 5)
    )
    outliers = pd.DataFrame(
        {
            "experiment": [f"k{k}" for k in CUTOFFS],
            "num_classes": list(CUTOFFS),
            "num_outliers": [k - 1 for k in CUTOFFS],
            "cutoff": list(CUTOFFS.values()),
        }
    )
    return spectra, outliers


def dots(axes, color: str | None = None) -> tuple[list[float], list[float]]:
    """What is marked by dots, in the order of the ranks."""
    lines = [
        line
        for line in axes.lines
        if line.get_marker() == "." and color in (None, line.get_color())
    ]
    points = sorted(point for line in lines for point in zip(*line.get_data(), strict=True))
    return [rank for rank, _ in points], [value for _, value in points]


def straight(axes, style_: str) -> list:
    return [line for line in axes.lines if line.get_linestyle() == style_]


def panels(figure: Figure, num_columns: int) -> np.ndarray:
    return np.array(figure.axes).reshape(-1, num_columns)


def test_endpoints_figure_shows_every_eigenvalue_and_the_largest(endpoints_table):
    rows = panels(endpoints_figure(endpoints_table, 7), 2)
    for (left, right), step in zip(rows, (0, 5000), strict=True):
        expected = endpoints_table[endpoints_table["step"] == step].sort_values("rank")
        for axes, part in ((left, expected), (right, expected.tail(7))):
            ranks, eigenvalues = dots(axes)
            assert ranks == part["rank"].tolist()
            assert eigenvalues == part["eigenvalue"].tolist()


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_endpoints_figure_grows_by_a_row_with_each_step(endpoints_table, num_steps):
    first = endpoints_table[endpoints_table["step"] == 0]
    table = pd.concat(first.assign(step=step) for step in range(num_steps))
    figure = endpoints_figure(table, 7)
    assert panels(figure, 2).shape == (num_steps, 2)
    assert figure.get_size_inches().tolist() == [5.5, 1.75 * num_steps + 0.2]


def test_endpoints_figure_names_its_axes(endpoints_table):
    rows = panels(endpoints_figure(endpoints_table, 7), 2)
    assert [[axes.get_ylabel() for axes in row] for row in rows] == [[NATS, ""]] * 2
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
def test_endpoints_figure_says_which_step_a_row_shows(endpoints_table, steps, titles):
    table = pd.concat(endpoints_table[endpoints_table["step"] == step] for step in steps)
    rows = panels(endpoints_figure(table, 7), 2)
    assert [left.get_title("left") for left, _ in rows] == [
        f"{title}, all 40 eigenvalues" for title in titles
    ]
    assert {right.get_title("left") for _, right in rows} == {"the 7 largest"}


def test_endpoints_figure_marks_zero_behind_the_eigenvalues(endpoints_table):
    for axes in endpoints_figure(endpoints_table, 7).axes:
        (zero,) = straight(axes, "-")
        assert list(zero.get_ydata()) == [0.0, 0.0]
        assert zero.get_zorder() < min(line.get_zorder() for line in axes.lines[1:])
        assert len(dots(axes, style.MATRIX_COLORS["hessian"])[0]) == len(dots(axes)[0])
        assert axes.get_yscale() == "linear"


def test_endpoints_figure_writes_thousands_with_a_comma(endpoints_table):
    axis = endpoints_figure(endpoints_table, 7).axes[0].xaxis
    assert axis.get_major_formatter()(4270, 0) == "4,270"


def test_gaps_figure_shows_the_largest_eigenvalues_of_each_panel(gaps_tables):
    spectra, outliers = gaps_tables
    figure = gaps_figure(spectra, outliers, 12)
    assert len(figure.axes) == 3
    for axes, k in zip(figure.axes, CUTOFFS, strict=True):
        assert dots(axes) == (list(range(SIZE - 12, SIZE)), bulk_and_top(k)[-12:].tolist())


def test_gaps_figure_colors_what_lies_above_the_cutoff(gaps_tables):
    for axes, k in zip(gaps_figure(*gaps_tables, 12).axes, CUTOFFS, strict=True):
        outlying, rest = (
            dots(axes, color)[1] for color in (style.OUTLIER_COLOR, style.MATRIX_COLORS["hessian"])
        )
        assert (len(outlying), len(rest)) == (k - 1, 12 - (k - 1))
        assert min(outlying) > CUTOFFS[k] >= max(rest)


def test_gaps_figure_colors_nothing_at_the_cutoff_itself(gaps_tables):
    spectra, outliers = gaps_tables
    highest = spectra.groupby("experiment")["eigenvalue"].max()
    outliers["cutoff"] = outliers["experiment"].map(highest)
    for axes in gaps_figure(spectra, outliers, 12).axes:
        assert dots(axes, style.OUTLIER_COLOR) == ([], [])


def test_gaps_figure_draws_the_cutoff_where_it_is(gaps_tables):
    for axes, k in zip(gaps_figure(*gaps_tables, 12).axes, CUTOFFS, strict=True):
        (cutoff,) = straight(axes, "--")
        assert list(cutoff.get_ydata()) == [CUTOFFS[k]] * 2
        assert cutoff.get_label() == "cutoff"


def test_gaps_figure_leaves_k_eigenvalues_to_the_right_of_its_line(gaps_tables):
    for axes, k in zip(gaps_figure(*gaps_tables, 12).axes, CUTOFFS, strict=True):
        (line,) = straight(axes, "-")
        (position,) = set(line.get_xdata())
        assert sum(rank > position for rank in dots(axes)[0]) == k
        assert position % 1 == 0.5  # between two ranks, on neither


def test_gaps_figure_has_one_logarithmic_axis_that_clips(gaps_tables):
    figure = gaps_figure(*gaps_tables, 30)
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    clipped = figure.axes[0].transData.transform([(0, -1.0)])
    assert np.isfinite(clipped).all()


def test_gaps_figure_names_its_axes_and_lines(gaps_tables):
    figure = gaps_figure(*gaps_tables, 12)
    assert [axes.get_ylabel() for axes in figure.axes] == [NATS, "", ""]
    assert figure.get_supxlabel() == "rank of the eigenvalue"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "cutoff",
        "$k$ eigenvalues to its right",
    ]
    assert figure.get_size_inches().tolist() == [5.5, 2.6]


def test_gaps_figure_says_k_and_the_count_above_each_panel(gaps_tables):
    figure = gaps_figure(*gaps_tables, 12)
    assert [axes.get_title() for axes in figure.axes] == [
        "$k = 5$\n4 above the gap",
        "$k = 2$\n1 above the gap",
        "$k = 3$\n2 above the gap",
    ]


def test_gaps_figure_labels_its_first_and_last_rank(gaps_tables):
    spectra, outliers = gaps_tables
    spectra["rank"] += 4000
    for axes in gaps_figure(spectra, outliers, 12).axes:
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert dict(zip(axes.get_xticks(), labels, strict=True)) == {4028: "4,028", 4039: "4,039"}


@pytest.fixture
def user_settings():
    """Settings that the style has, at other values, as a user's matplotlibrc may have them."""
    mine = {"font.size": 31.0, "axes.labelsize": 40.0, "axes.spines.top": True, "lines.marker": "x"}
    with mpl.rc_context(mine):
        yield dict(mpl.rcParams)


def test_figures_do_not_change_global_settings(endpoints_table, gaps_tables, user_settings):
    endpoints_figure(endpoints_table, 7)
    gaps_figure(*gaps_tables, 12)
    assert dict(mpl.rcParams) == user_settings


@pytest.mark.usefixtures("user_settings")
def test_figures_do_not_obey_global_settings(endpoints_table):
    axes = endpoints_figure(endpoints_table, 7).axes[0]
    assert axes.yaxis.label.get_size() == 9.0
    assert not axes.spines["top"].get_visible()


def test_context_gives_the_style_inside_and_takes_it_back(user_settings):
    with style.context():
        assert mpl.rcParams["font.size"] == style.RC_PARAMS["font.size"]
        assert not mpl.rcParams["axes.spines.top"]
    assert dict(mpl.rcParams) == user_settings


def test_matrices_and_outliers_have_colors_of_their_own():
    colors = [*style.MATRIX_COLORS.values(), style.OUTLIER_COLOR, style.NEUTRAL_COLOR]
    assert len(set(colors)) == 5
    assert set(style.MATRIX_LABELS) == set(style.MATRIX_COLORS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One figure, drawn and saved twice, the second time among hostile settings."""
    folder = tmp_path_factory.mktemp("figures")
    table = pd.DataFrame({"step": 0, "rank": range(5), "eigenvalue": [-1.0, 0.0, 0.5, 1.0, 2.0]})
    style.save(endpoints_figure(table, 3), folder / "a.pdf", folder / "a.png")
    hostile = {"savefig.bbox": "tight", "pdf.fonttype": 3, "savefig.dpi": 50, "font.size": 30.0}
    with mpl.rc_context(hostile):
        style.save(endpoints_figure(table, 3), folder / "b.pdf", folder / "b.png")
    return folder


@pytest.mark.parametrize("ending", ["pdf", "png"])
def test_save_gives_equal_bytes_for_equal_figures(saved, ending):
    assert (saved / f"a.{ending}").read_bytes() == (saved / f"b.{ending}").read_bytes()


def test_save_writes_fonts_that_stay_text(saved):
    content = (saved / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"Type3" not in content
    assert b"/CIDFontType2" in content


@pytest.mark.parametrize("word", [b"CreationDate", b"ModDate"])
def test_save_writes_no_date(saved, word):
    assert word not in (saved / "a.pdf").read_bytes()


def test_save_keeps_the_size_of_the_figure(saved):
    assert b"/MediaBox [ 0 0 396 140.4 ]" in (saved / "a.pdf").read_bytes()
    width, height = struct.unpack(">II", (saved / "a.png").read_bytes()[16:24])
    assert (width, height) == (1100, 390)


def test_save_does_not_change_global_settings(tmp_path, user_settings):
    style.save(Figure(), tmp_path / "a.pdf", tmp_path / "a.png")
    assert dict(mpl.rcParams) == user_settings


def edge_table():
    rows = [
        pd.DataFrame(
            {
                "experiment": f"width{width}", "seed": seed, "num_parameters": 10 * width,
                "num_negative": width, "rank": range(10 * width),
                "eigenvalue": np.arange(10 * width) - width + 0.1 * seed - 0.05,
            }
        )
        for width in (2, 4)
        for seed in (0, 1)
    ]  # fmt: skip
    return pd.concat(rows)


def test_right_edge_figure_shows_the_largest_eigenvalues_in_increasing_order():
    (axes,) = right_edge_figure(edge_table(), 5, ["20", "40"]).axes
    assert axes.get_yscale() == "log"
    assert len(axes.lines) == 4
    for line, (width, seed) in zip(axes.lines, [(2, 0), (2, 1), (4, 0), (4, 1)], strict=True):
        expected = np.arange(10 * width)[-5:] - width + 0.1 * seed - 0.05
        np.testing.assert_allclose(line.get_ydata(), expected)
        assert list(line.get_xdata()) == [1, 2, 3, 4, 5]
    colors = [line.get_color() for line in axes.lines]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["20", "40"]
    assert "nats" in axes.get_ylabel()


def test_negative_part_figure_shows_the_negative_eigenvalues_against_their_percentage():
    (axes,) = negative_part_figure(edge_table(), ["20", "40"]).axes
    curves = axes.lines[:4]
    for line, (width, seed) in zip(curves, [(2, 0), (2, 1), (4, 0), (4, 1)], strict=True):
        expected = np.arange(width) - width + 0.1 * seed - 0.05
        np.testing.assert_allclose(line.get_ydata(), expected)
        np.testing.assert_allclose(line.get_xdata(), 100 * np.arange(1, width + 1) / (10 * width))
    assert "%" in axes.get_xlabel()
    assert "nats" in axes.get_ylabel()


def test_figures_over_seeds_give_equal_bytes(tmp_path):
    for draw in (
        lambda: right_edge_figure(edge_table(), 5, ["20", "40"]),
        lambda: negative_part_figure(edge_table(), ["20", "40"]),
    ):
        contents = set()
        for name in ("one", "two"):
            style.save(draw(), tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
            contents.add((tmp_path / f"{name}.pdf").read_bytes())
        assert len(contents) == 1
