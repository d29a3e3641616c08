"""Spectra of H, G and R of an objective: all eigenvalues, extreme eigenpairs, density, norms.

    M v = lambda v,     M = H, G or R

The algorithms are in `hesspipe.linalg`. This module turns an objective and the name of a matrix
into a matrix, factors or an operator first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor
from tqdm import tqdm

from hesspipe.curvature.blocks_of_objectives import BlockOfObjective, find_block
from hesspipe.curvature.diagonal_blocks import DiagonalBlock
from hesspipe.curvature.error_bounds import product_error, sample_products
from hesspipe.curvature.exact_spectra import SpectrumMethod, objective_spectrum
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.multiplied import multiplied_by
from hesspipe.curvature.operators import CurvatureOperator, objective_of
from hesspipe.curvature.sharded_products import ShardedProducts
from hesspipe.curvature.vectors import VectorProduct
from hesspipe.hardware import name_exhaustion, require
from hesspipe.linalg import density as densities
from hesspipe.linalg import eigenpairs as pairs
from hesspipe.linalg import trace
from hesspipe.linalg.operator import SymmetricProduct, random_unit, symmetric_product
from hesspipe.linalg.ritz import Eigenpairs
from hesspipe.linalg.spectral_density import Density
from hesspipe.linalg.spectrum import (
    ZERO_TOLERANCE,
    Spectrum,
    is_solved_in_place,
    matrix_spectrum,
    solver_bytes,
)
from hesspipe.linalg.trace import NormEstimates
from hesspipe.objective.differentiability import differentiating, refuse_transforms
from hesspipe.objective.objective import Objective
from hesspipe.progress import bar_options
from hesspipe.ranks.ranks import Ranks
from hesspipe.seeding import probe_generator

# Unit vectors multiplied at once; see `hesspipe.curvature.columns`.
_UNITS_AT_ONCE = 32

_Found = TypeVar("_Found", Spectrum, Eigenpairs, Density, NormEstimates)


@name_exhaustion(
    "the spectrum",
    "use hesspipe.eigenpairs or hesspipe.density, which form no matrix, or smaller batches of data",
)
@differentiating()
def spectrum(
    objective: Any,
    matrix: Matrix | str | None = None,
    method: SpectrumMethod = "auto",
    *,
    zero_tolerance: float = ZERO_TOLERANCE,
    certify: bool | None = None,
    progress: bool | None = None,
) -> Spectrum:
    """Compute the exact spectrum of H, G or R at the objective's parameters.

    A dense symmetric eigensolver is applied either to the matrix, formed from its own formula, or
    to a smaller one with the same eigenvalues and zeros. Both are compared with products by
    differentiation, which bounds the errors, and the eigenvalues with the trace and the Frobenius
    norm.

    Parameters
    ----------
    objective : Objective, or a symmetric operator with `shape`, `dtype` and `@`
        In float64: the signs of small eigenvalues are noise in float32. A `hesspipe.DiagonalBlock`
        of whole parameters of an objective is treated as the objective in which the others are
        constant. The matrix of any other block or operator is formed by products.
    matrix : {"hessian", "ggn", "residual"}, optional
        By default the hessian of an objective, or the matrix of an operator. `hesspipe.spectra`
        computes all three.
    method : {"auto", "factored", "jacobians", "outputs", "layers", "convolutions", "columns"}
        "factored" computes the spectrum without the matrix (see
        `hesspipe.curvature.factored`), as do "jacobians" and "outputs" that of G of any network,
        with independent samples and without (see `hesspipe.curvature.sampled`); the others form
        the matrix first (see `hesspipe.curvature.dense`). "auto" chooses the first three where they
        are cheaper.
    zero_tolerance : float
        Multiple of the errors, the solver's and the matrix's, up to which an eigenvalue
        counts as zero; see `Spectrum.tolerance`.
    certify : bool, optional
        Whether to count the signs a second time, by factorizations L D L^T at both tolerances;
        by default where they take less than a second. See `Spectrum.certificate`.
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal.

    Returns
    -------
    Spectrum
        With P eigenvalues, where P is the number of parameters that vary. Parameters that are
        held constant have no rows, and no zeros among the eigenvalues and counts.

    Raises
    ------
    TypeError
        If the first argument is something else.
    TooLargeError
        If the matrix and the eigensolver do not fit into memory; raised before allocating.
    ValueError
        If the method does not apply to the network, the objective is not float64, or an entry of
        the matrix is not finite.

    Examples
    --------
    >>> inputs, targets = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> objective = Objective(torch.nn.Linear(1, 1), torch.nn.MSELoss(), (inputs, targets))
    >>> result = spectrum(objective)
    >>> result.num_negative, result.num_zero, result.num_positive
    (0, 0, 2)
    """
    if method not in get_args(SpectrumMethod):
        names = ", ".join(get_args(SpectrumMethod))
        raise ValueError(f"method must be one of {names}, got {method!r}")
    if isinstance(objective, DiagonalBlock):
        block = _require_name(objective, matrix)
        if block is not None and block.has_whole_parameters:
            objective = block.operator
    if not isinstance(objective, (Objective, CurvatureOperator)):
        return _operator_spectrum(objective, matrix, method, zero_tolerance, certify, progress)
    objective, matrix = objective_of(objective, matrix)
    require_double(objective)
    found = objective_spectrum(
        objective, matrix, method, zero_tolerance=zero_tolerance, certify=certify, progress=progress
    )
    return recorded(found, objective)


def _operator_spectrum(
    operator: Any,
    matrix: Matrix | str | None,
    method: SpectrumMethod,
    zero_tolerance: float,
    certify: bool | None,
    progress: bool | None,
) -> Spectrum:
    """Compute the spectrum of any symmetric operator, from products with all unit vectors."""
    if not all(hasattr(operator, name) for name in ("shape", "dtype", "__matmul__")):
        raise TypeError(
            "objective must be an Objective or a symmetric operator, got "
            f"{type(operator).__name__}; build one with hesspipe.Objective(model, loss_fn, data)"
        )
    if method != "auto":
        raise ValueError(
            f"method must be 'auto' for an operator, whose matrix is formed by products, got "
            f"{method!r}"
        )
    block = find_block(operator) if isinstance(operator, DiagonalBlock) else None
    if block is not None:
        require_double(block.objective)
    # Products of hesspipe are faster for several vectors at once.
    step = _UNITS_AT_ONCE if isinstance(_whole(operator), VectorProduct) else 1

    def compute(product: SymmetricProduct) -> Spectrum:
        require(
            (1 + is_solved_in_place(product.device, product.dim)) * solver_bytes(product.dim),
            f"the matrix of {product.dim:,} rows with the eigensolver",
            "use hesspipe.eigenpairs or hesspipe.density, which form no matrix",
            device=product.device,
        )
        return matrix_spectrum(
            _rows(product, step, progress),
            matrix=product.name,
            method="products",
            matrix_error=0.0 if block is None else product_error(block.objective, block.matrix),
            zero_tolerance=zero_tolerance,
            certify=certify,
        )

    settings = {"zero_tolerance": zero_tolerance, "certify": certify}
    return _computed(compute, operator, matrix, "spectrum", settings)


def _rows(product: SymmetricProduct, step: int, progress: bool | None) -> Tensor:
    """Form the matrix from products with unit vectors, `step` at once."""
    size = product.dim
    values = torch.empty(size, size, dtype=product.dtype, device=product.device)
    blocks = torch.arange(size, device="cpu").split(step)
    for rows in tqdm(blocks, desc="products", **bar_options(progress), unit="block"):
        units = torch.zeros_like(values[rows])
        units[torch.arange(len(rows), device="cpu"), rows] = 1
        values[rows] = product.multiply(units[0]) if step == 1 else product.multiply(units.T).T
    return values


def recorded(found: _Found, operator: Any) -> _Found:
    """Add to the provenance of a result what is known of the objective of an operator."""
    while isinstance(operator, DiagonalBlock):
        operator = operator.operator
    if not isinstance(operator, (Objective, CurvatureOperator)):
        return found
    objective = operator if isinstance(operator, Objective) else operator.objective
    about = {"num_data": objective.num_data, "weight_decay": objective.weight_decay}
    if objective.ranks is not None:
        about["processes"] = objective.ranks.size
    return replace(found, provenance={**found.provenance, **about})


def require_double(objective: Objective) -> None:
    """Raise an error if an objective has too few digits to count signs."""
    if objective.dtype != torch.float64:
        raise ValueError(
            f"dtype of the objective must be float64 to count signs, got {objective.dtype}; "
            "build the Objective with dtype=torch.float64"
        )


@name_exhaustion(
    "the search for eigenpairs",
    "use fewer eigenpairs, smaller batches of data, or dtype=torch.float32",
)
def eigenpairs(
    operator: Any,
    matrix: Matrix | str | None = None,
    num_smallest: int = 0,
    num_largest: int | None = None,
    *,
    num_dominant: int = 0,
    tolerance: float = pairs.TOLERANCE,
    max_products: int = pairs.MAX_PRODUCTS,
    basis_size: int | None = None,
    seed: int = 0,
    state: str | Path | None = None,
    keep_state: bool = False,
    progress: bool | None = None,
) -> Eigenpairs:
    """Compute extreme eigenpairs of H, G or R, or of any symmetric operator.

    Eigenvalues are found with their multiplicities, and eigenpairs have true residual norms; see
    `hesspipe.linalg.eigenpairs.eigenpairs` for the method and the errors raised. For an objective
    the first search starts from the gradient and a random vector of its length, because the
    gradient lies near the eigenvectors of outliers.

    Parameters
    ----------
    operator : Objective, or any object with `shape`, `dtype` and `@`
    matrix : {"hessian", "ggn", "residual"}, optional
        Which matrix of an objective, by default the hessian.
    num_smallest, num_largest : int
        Numbers of pairs from each end of the spectrum, smallest meaning most negative; by default
        the 10 largest. Together 1 to P.
    num_dominant : int
        Number of pairs with the largest absolute values, instead of the other two numbers.
    tolerance : float
        Residual norms are at most tolerance * max|eigenvalue|.
    max_products : int
        Products after which the search gives up with a `NotConvergedError`.
    basis_size : int, optional
        Vectors of length P to hold; more of them need fewer products.
    seed : int
        Seed of the random start vectors.
    state : path, optional
        A safetensors file to save the search to, and to resume it from.
    keep_state : bool
        Keep the file after success.
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal.

    Returns
    -------
    Eigenpairs

    Examples
    --------
    >>> inputs, targets = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> objective = Objective(torch.nn.Linear(1, 1), torch.nn.MSELoss(), (inputs, targets))
    >>> found = eigenpairs(objective, "ggn", num_largest=1)
    >>> found.matrix, round(float(found.eigenvalues), 4)
    ('ggn', 11.6569)
    """
    settings: dict[str, Any] = {
        "num_smallest": num_smallest,
        "num_largest": num_largest,
        "num_dominant": num_dominant,
        "tolerance": tolerance,
        "max_products": max_products,
        "basis_size": basis_size,
        "seed": seed,
    }
    files: dict[str, Any] = {"state": state, "keep_state": keep_state, "progress": progress}
    search = partial(pairs.eigenpairs, **settings, **files)
    return _computed(search, operator, matrix, "eigenpairs", settings)


@name_exhaustion("the density", "use fewer steps, smaller batches of data, or dtype=torch.float32")
def density(
    operator: Any,
    matrix: Matrix | str | None = None,
    *,
    num_probes: int = densities.NUM_PROBES,
    num_steps: int = densities.NUM_STEPS,
    seed: int = 0,
    progress: bool | None = None,
) -> Density:
    """Estimate the spectral density of H, G or R, or of any symmetric operator.

    Stochastic Lanczos quadrature with full reorthogonalization; see
    `hesspipe.linalg.density.density` for the method and the errors raised.

    Parameters
    ----------
    operator : Objective, or any object with `shape`, `dtype` and `@`
    matrix : {"hessian", "ggn", "residual"}, optional
        Which matrix of an objective, by default the hessian.
    num_probes : int
        Random vectors; at least 2 are needed for standard errors, which are nan for 1.
    num_steps : int
        Lanczos steps of each probe, at most P.
    seed : int
        Seed of the probes.
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal.

    Returns
    -------
    Density

    Examples
    --------
    >>> inputs, targets = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> objective = Objective(torch.nn.Linear(1, 1), torch.nn.MSELoss(), (inputs, targets))
    >>> density(objective, num_steps=2).nodes[0]  # with all P steps: the eigenvalues
    tensor([ 0.3431, 11.6569], dtype=torch.float64)
    """
    settings = {"num_probes": num_probes, "num_steps": num_steps, "seed": seed}
    estimate = partial(densities.density, **settings, progress=progress)
    return _computed(estimate, operator, matrix, "density", settings)


@name_exhaustion("the estimate of norms", "use smaller batches of data, or dtype=torch.float32")
def estimate_norms(
    operator: Any,
    matrix: Matrix | str | None = None,
    *,
    num_products: int = trace.NUM_PRODUCTS,
    seed: int = 0,
    progress: bool | None = None,
) -> NormEstimates:
    """Estimate trace and Frobenius norm of H, G or R, or of any symmetric operator.

    XTrace for fewer than 60 products, else Hutch++, with standard errors; see
    `hesspipe.linalg.trace.estimate_norms` for the methods and the errors raised.

    Parameters
    ----------
    operator : Objective, or any object with `shape`, `dtype` and `@`
    matrix : {"hessian", "ggn", "residual"}, optional
        Which matrix of an objective, by default the hessian.
    num_products : int
        Products to make, at least 6.
    seed : int
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal.

    Returns
    -------
    NormEstimates

    Examples
    --------
    >>> inputs, targets = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> objective = Objective(torch.nn.Linear(1, 1), torch.nn.MSELoss(), (inputs, targets))
    >>> round(estimate_norms(objective).trace.value, 10)
    12.0
    """
    settings = {"num_products": num_products, "seed": seed}
    estimate = partial(trace.estimate_norms, **settings, progress=progress)
    return _computed(estimate, operator, matrix, "estimate_norms", settings)


def _computed(
    compute: Callable[..., _Found],
    operator: Any,
    matrix: Matrix | str | None,
    name: str,
    settings: Mapping[str, Any],
) -> _Found:
    """Compute from products, in rank 0 where there are several processes."""
    refuse_transforms()
    ranks = _ranks_of(operator)
    if ranks is None:
        # Settings of torch that are changed here once are not for each product.
        is_own = isinstance(_whole(operator), (Objective, CurvatureOperator))
        with differentiating() if is_own else nullcontext():
            return recorded(compute(_product(operator, matrix)), operator)
    with ranks.raise_together(name):
        used, named = multiplied_by(operator, matrix)
        product = _product(used, named)
        ranks.agree_on({"matrix": product.name, "P": product.dim, **settings})
        found: _Found = _whole(used).found_together(name, partial(compute, product))
    return recorded(found, operator)


def _ranks_of(operator: Any) -> Ranks | None:
    """Return the processes that have parts of an operator, if it is one of hesspipe."""
    whole = _whole(operator)
    if isinstance(whole, CurvatureOperator):
        whole = whole.objective
    return whole.ranks if isinstance(whole, Objective) else None


def _whole(operator: Any) -> Any:
    """Return what a block is one of, or the operator itself."""
    return operator.whole if isinstance(operator, DiagonalBlock) else operator


def _product(operator: Any, matrix: Matrix | str | None) -> SymmetricProduct:
    """Wrap a matrix of an objective, or any symmetric operator, as a product."""
    operator, matrix = multiplied_by(operator, matrix)
    if isinstance(operator, ShardedProducts):
        return operator.as_symmetric_product()
    block = _require_name(operator, matrix)
    is_block = isinstance(operator, DiagonalBlock)
    whole = operator.whole if is_block else operator
    if is_block and not isinstance(whole, CurvatureOperator):
        checked = symmetric_product(whole)
        unit = random_unit(checked, probe_generator())
        return symmetric_product(operator, float(checked.multiply(unit).double().norm()))
    if not isinstance(whole, CurvatureOperator):
        return symmetric_product(operator)
    # Symmetric by construction: two products for a check are saved.
    name = "operator" if is_block else str(whole.matrix)
    used = operator if block is None else block.operator
    product = used.__matmul__, operator.shape[0], operator.dtype, operator.device, name
    if whole.is_distributed:
        return SymmetricProduct(*product)
    objective = whole.objective if block is None else block.objective
    start = None if is_block else whole.gradient_of_first_batch
    return SymmetricProduct(*product, partial(_rounding, objective, whole.matrix), start=start)


def _rounding(objective: Objective, matrix: Matrix) -> float:
    """The norm of the rounding error of a product with a unit vector."""
    return float(sample_products(objective, matrix).rounding / objective.num_parameters**0.5)


def _require_name(operator: Any, matrix: Matrix | str | None) -> BlockOfObjective | None:
    """Compare the name of a matrix with the operator's own, and find out of what it is a block."""
    is_block = isinstance(operator, DiagonalBlock)
    whole = operator.whole if is_block else operator
    own = whole.matrix if isinstance(whole, CurvatureOperator) else None
    if matrix is not None and Matrix(matrix) is not own:
        raise ValueError(
            "matrix must be left out for an operator, or be its own, got "
            f"{str(matrix)!r} for {'one without a name' if own is None else repr(str(own))}"
        )
    return find_block(operator) if is_block else None
