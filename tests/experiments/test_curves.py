"""A smoothed density is the weighted sum of its Gaussians."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, sem

from hesspipe.experiments.curves import density_of, smooth, smooth_densities
from hesspipe.tables.store import Result, read_result, write_result

ABOUT = {"experiment": "mine", "seed": 0, "step": 5, "matrix": "ggn", "group": "network"}


def density(nodes: Any, weights: Any, num_parameters: int = 50, **labels: Any) -> Result:
    nodes, weights = np.array(nodes), np.array(weights)
    rows = pd.DataFrame(
        {
            "probe": np.repeat(np.arange(len(nodes)), nodes.shape[1]),
            "node": nodes.ravel(), "weight": weights.ravel(), "coupling": 0.1 * weights.ravel(),
        }
    )  # fmt: skip
    about = ABOUT | {"num_parameters": num_parameters, "eps": 2.0**-52, "asymmetry": 0.0}
    return Result("density", rows, about | {"squared_lengths": [50.0] * len(nodes)} | labels)


NODES = [[0.0, 1.0, 4.0], [-1.0, 1.5, 3.0], [0.5, 1.0, 2.0]]
WEIGHTS = [[0.5, 0.25, 0.25], [0.2, 0.3, 0.5], [0.6, 0.2, 0.2]]


def test_smoothed_density_is_the_sum_of_its_gaussians() -> None:
    curve = smooth([density(NODES, WEIGHTS)], 0.02, 400)
    width = 0.02 * 5.0  # the nodes lie in [-1, 4]
    values = curve["value"].to_numpy()
    assert (values[0], values[-1]) == (-1.0 - 5 * width, 4.0 + 5 * width)
    by_probe = np.array(
        [
            norm.pdf(values[:, None], nodes, width) @ weights
            for nodes, weights in zip(NODES, WEIGHTS, strict=True)
        ]
    )
    np.testing.assert_allclose(curve["density"], by_probe.mean(0), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(curve["standard_error"], sem(by_probe), rtol=1e-10, atol=1e-300)
    assert np.trapezoid(curve["density"], values) == pytest.approx(1.0, abs=1e-6)


def test_one_eigenvalue_is_the_peak_of_a_share_of_one() -> None:
    # 39 of 40 eigenvalues are 0, and one is 10, which is the value of a point.
    nodes, weights = [[0.0, 10.0]] * 2, [[39 / 40, 1 / 40]] * 2
    curve = smooth([density(nodes, weights, 40)], 0.01, 2201)
    at_ten = curve.loc[(curve["value"] - 10.0).abs().idxmin()]
    assert at_ten["density"] == pytest.approx(at_ten["one_eigenvalue"], rel=1e-6)
    assert at_ten["standard_error"] == pytest.approx(0.0, abs=1e-12)


def test_several_densities_share_their_grid_and_keep_their_labels() -> None:
    densities = [
        density(NODES, WEIGHTS, group="head"),
        density([[20.0, 30.0]] * 2, [[0.5, 0.5]] * 2, 7, matrix="hessian"),
    ]
    curves = smooth(densities, 0.1, 50)
    first, second = curves.iloc[:50], curves.iloc[50:]
    np.testing.assert_array_equal(first["value"], second["value"])
    assert (first["value"].min(), first["value"].max()) == (-1.0 - 15.5, 30.0 + 15.5)
    assert set(first["group"]) == {"head"}
    assert (set(second["matrix"]), set(second["num_parameters"])) == ({"hessian"}, {7})


def test_density_of_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = density(NODES, WEIGHTS)
    mixed = Result("density", rows.table.sample(frac=1.0, random_state=0), rows.provenance)
    assert (density_of(mixed).nodes == density_of(rows).nodes).all()
    assert (density_of(mixed).weights == density_of(rows).weights).all()


@pytest.mark.parametrize(
    ("nodes", "relative_width", "num_points", "message"),
    [
        (NODES, 0.0, 10, "relative_width must be in"),
        (NODES, 1.5, 10, "relative_width must be in"),
        (NODES, 0.1, 1, "num_points must be at least 2"),
        ([[2.0, 2.0, 2.0]] * 3, 0.1, 10, "two different nodes to be drawn, got only 2.0"),
    ],
)
def test_smooth_refuses_invalid_arguments(
    nodes: Any, relative_width: float, num_points: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        smooth([density(nodes, WEIGHTS)], relative_width, num_points)


@pytest.mark.parametrize(("kind", "num_grids"), [("densities", 1), ("layers", 2)])
def test_smooth_densities_shares_a_grid_in_one_panel_only(
    tmp_path: Path, kind: Any, num_grids: int
) -> None:
    densities = [
        density(NODES, WEIGHTS, group="head"),
        density([[20.0, 30.0]] * 2, [[0.5, 0.5]] * 2, 7, group="body"),
    ]
    paths = [tmp_path / f"{number}.parquet" for number in range(2)]
    for result, path in zip(densities, paths, strict=True):
        write_result(result, path)
    curves = smooth_densities(paths, kind=kind, relative_width=0.1, num_points=50)
    panels = [densities] if num_grids == 1 else [[result] for result in densities]
    expected = pd.concat([smooth(panel, 0.1, 50) for panel in panels], ignore_index=True)
    write_result(curves, tmp_path / "curves.parquet")
    stored = read_result(tmp_path / "curves.parquet", "curves")
    pd.testing.assert_frame_equal(stored.table, expected, check_exact=True)
    lows = stored.table.groupby("group")["value"].min()
    assert len(set(lows)) == num_grids
    assert [found["group"] for found in stored.provenance["densities"]] == ["head", "body"]
