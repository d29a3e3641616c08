"""The exact spectrum of H, G or R of an objective, by the cheapest method that applies.

A dense symmetric eigensolver is applied to factors of the network, to the Gram matrix of its
Jacobians, or to the matrix itself. A method that fails gives way to the next one.
"""

from __future__ import annotations

from typing import Any, Literal

from hesspipe.curvature.dense import exact_matrix
from hesspipe.curvature.factored import factored_spectrum, find_factors, is_cheaper
from hesspipe.curvature.factors import Factors
from hesspipe.curvature.layers import Layer, find_layers
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.sampled import find_directions, has_few_outputs, sampled_spectrum
from hesspipe.errors import TooLargeError
from hesspipe.linalg.spectrum import Spectrum, matrix_spectrum, solver_bytes
from hesspipe.objective.objective import Objective

SpectrumMethod = Literal["auto", "factored", "jacobians", "layers", "convolutions", "columns"]


def objective_spectrum(
    objective: Objective,
    matrix: Matrix,
    method: SpectrumMethod,
    *,
    progress: bool | None,
    **options: Any,
) -> Spectrum:
    """Compute the spectrum from factors, or from the matrix where there are none."""
    layers = find_layers(objective) if method in ("auto", "factored") else None
    too_large: TooLargeError | None = None
    if layers is not None:
        try:
            factors = _factors(objective, layers, matrix, method)
            if factors is not None:
                return factored_spectrum(objective, factors, matrix, **options)
        except Exception as error:  # of any kind: where the method is chosen here, others remain
            if method != "auto":
                raise
            too_large = error if isinstance(error, TooLargeError) else None
    if method == "jacobians" or (method == "auto" and has_few_outputs(objective, matrix)):
        try:
            directions = find_directions(objective, matrix)
            return sampled_spectrum(objective, directions, progress=progress, **options)
        except Exception as error:  # likewise
            if method != "auto":
                raise
            too_large = error if isinstance(error, TooLargeError) else too_large
    try:
        exact = exact_matrix(
            objective,
            matrix,
            "auto" if method == "factored" else method,
            layers=layers,
            extra_bytes=solver_bytes(objective.num_parameters),
            progress=progress,
        )
    except TooLargeError:
        if too_large is None:
            raise
        raise too_large from None  # the factors, which need less
    return matrix_spectrum(
        exact.values, matrix=matrix, method=exact.method, matrix_error=exact.error, **options
    )


def _factors(
    objective: Objective, layers: list[Layer] | None, matrix: Matrix, method: SpectrumMethod
) -> Factors | None:
    """The factors, if required or cheaper than the matrix."""
    if layers is None or not objective.has_output_rows:
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
