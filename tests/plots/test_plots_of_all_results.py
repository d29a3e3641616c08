"""Every public result is drawn, shown in a few lines and kept in a file, whatever its numbers."""

from __future__ import annotations

import warnings
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from results_of_all_kinds import examples, line, monitor, plane, result_classes

import hesspipe
from hesspipe.figures import densities, outliers, over_training
from hesspipe.figures import line as line_figure
from hesspipe.tables.store import Result, read_result

EXAMPLES = examples()
EVERY = [(name, number) for name, found in EXAMPLES.items() for number in range(len(found))]


def test_every_class_that_a_public_function_returns_has_an_example() -> None:
    assert {kind.__name__ for kind in result_classes()} == set(EXAMPLES)


@pytest.mark.parametrize(("name", "number"), EVERY)
def test_every_result_is_drawn_without_a_warning_and_shown_in_a_few_lines(
    name: str, number: int
) -> None:
    found = EXAMPLES[name][number]
    axes: Axes = plt.figure(figsize=(2, 2), dpi=30).add_axes((0.3, 0.3, 0.6, 0.6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found.plot(axes) is axes
        axes.figure.canvas.draw()
    assert name == "Monitor" or axes.lines or axes.collections or axes.patches
    assert len(repr(found).splitlines()) <= 6
    assert max(map(len, repr(found).splitlines())) <= 100


@pytest.mark.parametrize("name", EXAMPLES)
def test_plot_refuses_what_is_no_axes(name: str) -> None:
    with pytest.raises(TypeError, match="ax must be Axes of matplotlib, got ndarray"):
        EXAMPLES[name][0].plot(plt.subplots(2, figsize=(1, 1))[1])


def require_equal(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_exact=True)
    elif isinstance(expected, np.ndarray):
        assert found.tolist() == expected.tolist()
    elif is_dataclass(expected):
        for each in fields(expected):
            if each.name != "provenance":
                require_equal(getattr(found, each.name), getattr(expected, each.name))
    else:
        assert found == expected or (found != found and expected != expected)


@pytest.mark.parametrize(("name", "number"), [each for each in EVERY if each[0] != "LayerSpectra"])
def test_load_returns_every_result_as_it_was_and_equal_files_are_equal_bytes(
    name: str, number: int, tmp_path: Path
) -> None:
    found = EXAMPLES[name][number]
    path = tmp_path / "result.parquet"
    hesspipe.save(found, path)
    again = hesspipe.load(path)
    if name == "Monitor":
        assert isinstance(again, Result)
        pd.testing.assert_frame_equal(again.table, found.table)
    else:
        require_equal(again, found)
    before = path.read_bytes()
    hesspipe.save(again, path)
    assert path.read_bytes() == before


def test_records_are_drawn_with_residuals_and_the_limit() -> None:
    found = monitor()
    axes = found.plot()
    rows = found.table.query("end == 'smallest'")
    drawn = [bar.lines[0].get_xydata().tolist() for bar in axes.containers]
    assert rows[["step", "eigenvalue"]].to_numpy().tolist() in drawn
    (limit,) = (each for each in axes.lines if each.get_label() == "stability limit")
    assert set(limit.get_ydata()) == {4.0}
    for rank in found.table.query("end == 'largest'")["rank"].unique():
        chosen = found.table[found.table["rank"] == rank]
        assert chosen[["step", "eigenvalue"]].to_numpy().tolist() in drawn


def test_barrier_of_a_line_is_drawn_where_it_rises() -> None:
    barrier = line(0.0, 1.0, 5.0, 1.0, 2.0).barrier()
    axes = barrier.plot()
    (rise,) = (each for each in axes.lines if str(each.get_label()).startswith("barrier"))
    assert rise.get_xydata().tolist() == [[0.5, 1.0], [0.5, 5.0]]
    assert barrier.height == 4.0


def test_plane_is_drawn_in_the_colors_of_its_losses() -> None:
    axes = plane(*range(1, 17)).plot()
    contours = axes.collections[0]
    assert (contours.levels[0], contours.levels[-1]) == (1.0, 16.0)
    assert axes.figure.axes[1].get_ylabel() == "training loss"


def test_figures_take_saved_results_with_their_labels(tmp_path: Path) -> None:
    spectrum = hesspipe.spectrum(torch.diag(torch.tensor([1.0, 2.0, 9.0], dtype=torch.float64)))
    counts = hesspipe.count_outliers(spectrum)
    drawn = hesspipe.density(torch.diag(torch.arange(9.0, dtype=torch.float64)), num_steps=5)
    named = replace(drawn, matrix="hessian")
    curve = named.evaluate(torch.linspace(-1, 9, 30, dtype=torch.float64), 0.5)
    paths = {}
    for name, each in {
        "spectrum": spectrum,
        "counts": counts,
        "curve": curve,
        "line": line(1.0, 2.0, 4.0, 2.0, 1.0),
        "monitor": monitor(),
    }.items():
        paths[name] = tmp_path / f"{name}.parquet"
        hesspipe.save(each, paths[name], experiment="mine", step=7)
    assert read_result(paths["curve"]).table["experiment"].unique().tolist() == ["mine"]
    for read in (hesspipe.load, read_result):
        settings = {"step": 7, "matrix": "operator", "num_largest": 3}
        figures = [
            outliers.make_figure([read(paths["spectrum"]), read(paths["counts"])], settings),
            densities.make_figure([read(paths["curve"])], {}),
            line_figure.make_figure([read(paths["line"])], {}),
            over_training.make_figure(
                [read(paths["monitor"])], {"num_largest": 2, "num_smallest": 1}
            ),
        ]
        assert all(figure.axes[0].lines for figure in figures)


def test_tables_without_a_plot_of_their_own_name_the_figures() -> None:
    table = pd.DataFrame({"step": [0], "train_loss": [1.0]})
    with pytest.raises(TypeError, match=r"'history' has no plot .* hesspipe\.figures"):
        Result("history", table, {}).plot()
