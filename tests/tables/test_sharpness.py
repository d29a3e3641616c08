"""The stability limit of sharpness is that of gradient descent on a quadratic."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from hesspipe.tables.sharpness import make_table
from hesspipe.tables.store import Result


def eigenpairs(values: list[float], step_size: float) -> Result:
    """Eigenpairs of the largest of 100 eigenvalues, in ascending order."""
    table = pd.DataFrame(
        {
            "end": "largest",
            "rank": range(100 - len(values), 100),
            "eigenvalue": values,
            "residual_norm": [1e-3 * value for value in values],
        }
    )
    provenance = {
        "experiment": "part", "seed": 1, "step": 50, "matrix": "hessian", "num_parameters": 100,
        "training": {"step_size": step_size, "batch_size": 32},
    }  # fmt: skip
    return Result("eigenpairs", table, provenance)


def test_make_table_has_the_largest_first_and_two_over_the_step_size() -> None:
    results = [eigenpairs([1.0, 2.0, 5.0], 0.1), eigenpairs([7.0, 9.0], 0.5)]
    table = make_table(results, {"num_largest": 2})
    assert list(table["eigenvalue"]) == [5, 2, 9, 7]
    assert list(table["residual_norm"]) == pytest.approx([5e-3, 2e-3, 9e-3, 7e-3], rel=1e-15)
    assert list(table["order"]) == [1, 2, 1, 2]
    assert list(table["stability_limit"]) == [20, 20, 4, 4]
    assert set(table["batch_size"]) == {32}
    assert set(table["step"]) == {50}


def test_make_table_refuses_fewer_eigenvalues_than_configured() -> None:
    with pytest.raises(ValueError, match=r"must be at least 3, got 2"):
        make_table([eigenpairs([7.0, 9.0], 0.5)], {"num_largest": 3})


@pytest.mark.parametrize(("eigenvalue", "grows"), [(19.9, False), (20.1, True)])
def test_stability_limit_is_where_descent_on_a_quadratic_starts_to_grow(
    eigenvalue: float, grows: bool
) -> None:
    table = make_table([eigenpairs([eigenvalue], 0.1)], {"num_largest": 1})
    limit = table["stability_limit"].item()
    theta = torch.ones((), dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        (slope,) = torch.autograd.grad(eigenvalue / 2 * theta**2, theta)
        theta = (theta - 0.1 * slope).detach().requires_grad_()
    assert (theta.abs().item() > 1) == grows == (eigenvalue > limit)
