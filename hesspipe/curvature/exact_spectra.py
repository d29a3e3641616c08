"""The exact spectrum of H, G or R of an objective, by the cheapest method that applies.

A dense symmetric eigensolver is applied to factors of the network, to the Gram matrix of its
Jacobians, or to the matrix itself. A method that fails gives way to the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

from hesspipe.curvature.dense import ExactMatrix, exact_matrix
from hesspipe.curvature.factored import factored_spectrum, find_factors, is_cheaper
from hesspipe.curvature.factors import Factors
from hesspipe.curvature.layers import Layer, find_layers
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.sampled import (
    find_directions,
    find_output_directions,
    has_few_outputs,
    has_few_whole_outputs,
    sampled_spectrum,
)
from hesspipe.errors import TooLargeError
from hesspipe.linalg.spectrum import (
    Spectrum,
    is_solved_in_place,
    matrix_spectrum,
    solver_bytes,
)
from hesspipe.objective.objective import Objective

SpectrumMethod = Literal[
    "auto", "factored", "jacobians", "outputs", "layers", "convolutions", "columns"
]


def objective_spectrum(
    objective: Objective,
    matrix: Matrix,
    method: SpectrumMethod,
    *,
    progress: bool | None,
    layers: list[Layer] | None = None,
    form: Callable[..., ExactMatrix] = exact_matrix,
    **options: Any,
) -> Spectrum:
    """Compute the spectrum from factors, or from the matrix where there are none.

    `form` computes the matrix, as `hesspipe.curvature.dense.exact_matrix` does; layers are given
    where they are known.
    """
    if method == "jacobians":
        return _from_jacobians(objective, matrix, progress, options)
    if method == "outputs":
        return _from_outputs(objective, matrix, progress, options)
    if layers is None and method in ("auto", "factored"):
        layers = find_layers(objective)
    too_large: TooLargeError | None = None
    for compute in _ways_without_matrix(objective, layers, matrix, method, progress, options):
        try:
            found = compute()
        except Exception as error:  # of any kind: where the method is chosen here, others remain
            if method != "auto":
                raise
            too_large = error if isinstance(error, TooLargeError) else too_large
        else:
            if found is not None:
                return found
    of_matrix = "auto" if method == "factored" else method
    room = {"extra_bytes": _solver_bytes(objective)}
    try:
        exact = form(objective, matrix, of_matrix, layers=layers, progress=progress, **room)
    except TooLargeError:
        if too_large is None:
            raise
        raise too_large from None  # the factors, which need less
    return matrix_spectrum(
        exact.values, matrix=matrix, method=exact.method, matrix_error=exact.error, **options
    )


def _solver_bytes(objective: Objective) -> int:
    """What the eigensolver takes where the matrix is."""
    size = objective.num_parameters
    return solver_bytes(size) if is_solved_in_place(objective.device, size) else 0


def _ways_without_matrix(
    objective: Objective,
    layers: list[Layer] | None,
    matrix: Matrix,
    method: SpectrumMethod,
    progress: bool | None,
    options: dict[str, Any],
) -> Iterator[Callable[[], Spectrum | None]]:
    """The ways to the spectrum that the method allows, in the order to try them."""
    if layers is not None and method in ("auto", "factored"):
        yield partial(_from_factors, objective, layers, matrix, method, options)
    if method == "auto" and has_few_outputs(objective, matrix):
        yield partial(_from_jacobians, objective, matrix, progress, options)
    if method == "auto" and has_few_whole_outputs(objective, matrix):
        yield partial(_from_outputs, objective, matrix, progress, options)


def _from_factors(
    objective: Objective,
    layers: list[Layer],
    matrix: Matrix,
    method: SpectrumMethod,
    options: dict[str, Any],
) -> Spectrum | None:
    """The spectrum from factors; None where the matrix is cheaper."""
    factors = _factors(objective, layers, matrix, method)
    return None if factors is None else factored_spectrum(objective, factors, matrix, **options)


def _from_jacobians(
    objective: Objective, matrix: Matrix, progress: bool | None, options: dict[str, Any]
) -> Spectrum:
    """The spectrum from the Gram matrix of the Jacobians."""
    directions = find_directions(objective, matrix)
    return sampled_spectrum(objective, directions, progress=progress, **options)


def _from_outputs(
    objective: Objective, matrix: Matrix, progress: bool | None, options: dict[str, Any]
) -> Spectrum:
    """The spectrum from the Gram matrix of the Jacobians of all outputs of each batch."""
    directions = find_output_directions(objective, matrix)
    return sampled_spectrum(objective, directions, progress=progress, **options)


def _factors(
    objective: Objective, layers: list[Layer], matrix: Matrix, method: SpectrumMethod
) -> Factors | None:
    """The factors, if required or cheaper than the matrix."""
    if not objective.has_output_rows:
        return None
    size = objective.num_parameters
    num_outputs = len(objective.outputs(objective.theta, objective.batches[0].inputs[:1])[0])
    if (
        method == "auto"
        and matrix is not Matrix.RESIDUAL
        and objective.num_data * (num_outputs - 1) > size
    ):
        return None  # A alone has more columns than the matrix
    factors = find_factors(objective, layers, matrix)
    if method == "factored" and factors is None:
        raise ValueError(
            "method 'factored' needs a network of Linear layers, piecewise linear for the hessian "
            "and the residual; use method='auto' for this network"
        )
    return factors if factors is None or method == "factored" or is_cheaper(factors) else None
