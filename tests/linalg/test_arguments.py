"""Numbers of the wrong kind or size are refused by name, before anything is computed."""

from typing import Any

import numpy as np
import pytest
import torch

from hesspipe.linalg.density import density
from hesspipe.linalg.eigenpairs import eigenpairs
from hesspipe.linalg.trace import estimate_norms

MATRIX = torch.diag(torch.arange(1.0, 41.0, dtype=torch.float64))
INTEGERS = [
    (eigenpairs, "num_largest"),
    (eigenpairs, "num_smallest"),
    (eigenpairs, "max_products"),
    (eigenpairs, "basis_size"),
    (eigenpairs, "seed"),
    (density, "num_probes"),
    (density, "num_steps"),
    (density, "seed"),
    (estimate_norms, "num_products"),
    (estimate_norms, "seed"),
]
# What else each call needs: 40 eigenvalues allow no more steps.
OTHERS: dict[Any, dict[str, Any]] = {density: {"num_steps": 5}}


def call(function: Any, **arguments: Any) -> Any:
    return function(MATRIX, **(OTHERS.get(function, {}) | arguments))


@pytest.mark.parametrize(("function", "name"), INTEGERS)
@pytest.mark.parametrize("value", [1.5, "x", True, np.float64(2.0), [3], torch.tensor(1.0)])
def test_integer_arguments_of_another_type_are_refused(
    function: Any, name: str, value: Any
) -> None:
    with pytest.raises(TypeError, match=f"{name} must be an integer, got"):
        call(function, **{name: value})


@pytest.mark.parametrize(("function", "name"), INTEGERS)
def test_integer_arguments_below_their_range_are_refused(function: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        call(function, **{name: -1})


@pytest.mark.parametrize("value", [np.int64(3), torch.tensor(3), np.uint8(3)])
def test_integers_of_other_libraries_are_those_of_python(value: Any) -> None:
    found = eigenpairs(MATRIX, num_largest=value).eigenvalues
    assert found.tolist() == pytest.approx([38, 39, 40])
    assert density(MATRIX, num_probes=value, num_steps=value).nodes.shape == (3, 3)


@pytest.mark.parametrize(
    ("value", "error"),
    [("1e-3", TypeError), (None, TypeError), (float("nan"), ValueError), (1.0, ValueError),
     (0.2, ValueError), (0.0, ValueError), (-1e-3, ValueError)],
)  # fmt: skip
def test_eigenpairs_refuses_a_tolerance_that_promises_nothing(value: Any, error: type) -> None:
    with pytest.raises(error, match="tolerance must be"):
        eigenpairs(MATRIX, num_largest=1, tolerance=value)


@pytest.mark.parametrize("value", ["a", None, True, [1.0, 2.0]])
@pytest.mark.parametrize("name", ["low", "high"])
def test_count_refuses_what_is_no_number(name: str, value: Any) -> None:
    found = density(MATRIX, num_steps=5)
    with pytest.raises(TypeError, match=f"{name} must be a real number"):
        found.count(**{name: value})


def test_count_refuses_nan() -> None:
    with pytest.raises(ValueError, match="low must be a number, got nan"):
        density(MATRIX, num_steps=5).count(low=float("nan"))
