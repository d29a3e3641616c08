"""The style is given to figures only, and equal figures are saved as equal bytes."""

import struct

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure

from hesspipe.figures import endpoints
from hesspipe.plots import style
from hesspipe.tables.store import Result

EIGENVALUES = [-1.0, 0.0, 0.5, 1.0, 2.0]
SPECTRUM = Result(
    "spectrum", pd.DataFrame({"rank": range(5), "eigenvalue": EIGENVALUES}), {"step": 0}
)


@pytest.fixture
def user_settings():
    """Settings that the style has, at other values, as a user's matplotlibrc may have them."""
    mine = {"font.size": 31.0, "axes.labelsize": 40.0, "axes.spines.top": True, "lines.marker": "x"}
    with mpl.rc_context(mine):
        yield dict(mpl.rcParams)


def test_figures_do_not_change_global_settings(user_settings):
    endpoints.make_figure([SPECTRUM], {"num_largest": 3})
    assert dict(mpl.rcParams) == user_settings


@pytest.mark.usefixtures("user_settings")
def test_figures_do_not_obey_global_settings():
    axes = endpoints.make_figure([SPECTRUM], {"num_largest": 3}).axes[0]
    assert axes.yaxis.label.get_size() == 9.0
    assert not axes.spines["top"].get_visible()


def test_context_gives_the_style_inside_and_takes_it_back(user_settings):
    with style.context():
        assert mpl.rcParams["font.size"] == style.RC_PARAMS["font.size"]
        assert not mpl.rcParams["axes.spines.top"]
    assert dict(mpl.rcParams) == user_settings


def test_matrices_and_outliers_have_different_colors():
    colors = [*style.MATRIX_COLORS.values(), style.OUTLIER_COLOR, style.NEUTRAL_COLOR]
    assert len(set(colors)) == 5
    assert set(style.MATRIX_LABELS) == set(style.MATRIX_COLORS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One figure, drawn and saved twice, the second time among hostile settings."""
    folder = tmp_path_factory.mktemp("figures")
    settings = {"num_largest": 3}
    style.save(endpoints.make_figure([SPECTRUM], settings), folder / "a.pdf", folder / "a.png")
    hostile = {"savefig.bbox": "tight", "pdf.fonttype": 3, "savefig.dpi": 50, "font.size": 30.0}
    with mpl.rc_context(hostile):
        style.save(endpoints.make_figure([SPECTRUM], settings), folder / "b.pdf", folder / "b.png")
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
