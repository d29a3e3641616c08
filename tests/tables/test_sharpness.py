"""Largest eigenvalues beside the stability limit, which plain descent on a quadratic obeys."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from hesspipe.tables.sharpness import sharpness_table


def eigenpairs(values: list[float], step_size: float) -> pd.DataFrame:
    """An eigenpair table of the largest of 100 eigenvalues, in ascending order."""
    table = pd.DataFrame(
        {
            "end": "largest",
            "rank": range(100 - len(values), 100),
            "eigenvalue": values,
            "residual_norm": [1e-3 * value for value in values],
        }
    )
    table.attrs = {
        "experiment": "part", "seed": 1, "step": 50, "matrix": "hessian", "num_parameters": 100,
        "training": {"step_size": step_size, "batch_size": 32},
    }  # fmt: skip
    return table


def test_sharpness_table_has_the_largest_first_beside_two_over_the_step() -> None:
    table = sharpness_table([eigenpairs([1.0, 2.0, 5.0], 0.1), eigenpairs([7.0, 9.0], 0.5)], 2)
    assert list(table["eigenvalue"]) == [5, 2, 9, 7]
    assert list(table["residual_norm"]) == pytest.approx([5e-3, 2e-3, 9e-3, 7e-3], rel=1e-15)
    assert list(table["order"]) == [1, 2, 1, 2]
    assert list(table["stability_limit"]) == [20, 20, 4, 4]
    assert set(table["batch_size"]) == {32}
    assert set(table["step"]) == {50}


def test_sharpness_table_refuses_fewer_eigenvalues_than_asked() -> None:
    with pytest.raises(ValueError, match=r"must be at least 3, got 2"):
        sharpness_table([eigenpairs([7.0, 9.0], 0.5)], 3)


@pytest.mark.parametrize(("eigenvalue", "grows"), [(19.9, False), (20.1, True)])
def test_stability_limit_is_where_descent_on_a_quadratic_starts_to_grow(
    eigenvalue: float, grows: bool
) -> None:
    limit = sharpness_table([eigenpairs([eigenvalue], 0.1)], 1)["stability_limit"].item()
    theta = torch.ones((), dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        (slope,) = torch.autograd.grad(eigenvalue / 2 * theta**2, theta)
        theta = (theta - 0.1 * slope).detach().requires_grad_()
    assert (theta.abs().item() > 1) == grows == (eigenvalue > limit)
