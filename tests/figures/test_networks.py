"""Figures 3 to 6: a curve for each seed of several networks."""

import numpy as np
import pandas as pd

from hesspipe.figures import negative_part, right_edge
from hesspipe.plots import style
from hesspipe.tables.store import Result


def spectrum(width: int, seed: int) -> Result:
    eigenvalues = np.arange(10 * width) - width + 0.1 * seed - 0.05
    table = pd.DataFrame({"rank": range(10 * width), "eigenvalue": eigenvalues})
    provenance = {
        "experiment": f"width{width}", "seed": seed, "step": 9, "matrix": "hessian",
        "num_classes": 3, "num_parameters": 10 * width, "num_negative": width, "num_zero": 0,
    }  # fmt: skip
    return Result("spectrum", table, provenance)


SPECTRA = [spectrum(width, seed) for width in (2, 4) for seed in (0, 1)]
SETTINGS = {"num_largest": 5, "labels": ["20", "40"]}


def test_right_edge_shows_the_largest_eigenvalues_in_increasing_order():
    (axes,) = right_edge.make_figure(SPECTRA, SETTINGS).axes
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


def test_negative_part_shows_the_negative_eigenvalues_against_their_percentage():
    (axes,) = negative_part.make_figure(SPECTRA, SETTINGS).axes
    curves = axes.lines[:4]
    for line, (width, seed) in zip(curves, [(2, 0), (2, 1), (4, 0), (4, 1)], strict=True):
        expected = np.arange(width) - width + 0.1 * seed - 0.05
        np.testing.assert_allclose(line.get_ydata(), expected)
        np.testing.assert_allclose(line.get_xdata(), 100 * np.arange(1, width + 1) / (10 * width))
    assert "%" in axes.get_xlabel()
    assert "nats" in axes.get_ylabel()


def test_figures_over_seeds_give_equal_bytes(tmp_path):
    for draw in (
        lambda: right_edge.make_figure(SPECTRA, SETTINGS),
        lambda: negative_part.make_figure(SPECTRA, SETTINGS),
    ):
        contents = set()
        for name in ("one", "two"):
            style.save(draw(), tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
            contents.add((tmp_path / f"{name}.pdf").read_bytes())
        assert len(contents) == 1
