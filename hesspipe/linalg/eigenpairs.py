"""Extreme eigenpairs of a symmetric operator, from both ends of the spectrum, with multiplicity.

Thick-restart Lanczos with full reorthogonalization. It needs a fifth to a half of the products of
LOBPCG, and about as many as ARPACK, which does not verify multiplicities
(benchmarks/eigenpairs.md). `hesspipe.linalg.thick_restart` explains when a search is complete.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from hesspipe.errors import NotConvergedError
from hesspipe.forecasts import basis_capacity, least_basis_capacity, vectors_of_search
from hesspipe.hardware import available_on
from hesspipe.linalg.arguments import require_integer, require_number
from hesspipe.linalg.krylov import KrylovBasis
from hesspipe.linalg.operator import Scaling, SymmetricProduct, scaled, symmetric_product
from hesspipe.linalg.rank_state import RankState, path_of_rank
from hesspipe.linalg.ritz import Eigenpairs as Eigenpairs
from hesspipe.linalg.ritz import times
from hesspipe.linalg.search_state import SearchState, saved_capacity
from hesspipe.linalg.thick_restart import PairSearch
from hesspipe.progress import bar_options
from hesspipe.unfinished import lock

# Defaults. Ten pairs are the outliers of a ten-class problem, and one more. Residual norms of 1e-8
# are relative to the largest eigenvalue: as eigenvalues err by their squares, values are then exact
# to rounding. The products bound the time of a search that does not converge.
NUM_LARGEST = 10
TOLERANCE = 1e-8
LARGEST_TOLERANCE = 0.1
MAX_PRODUCTS = 10_000
_LOG = logging.getLogger(__name__)


def eigenpairs(
    operator: Any,
    num_smallest: int = 0,
    num_largest: int | None = None,
    *,
    num_dominant: int = 0,
    tolerance: float = TOLERANCE,
    max_products: int = MAX_PRODUCTS,
    basis_size: int | None = None,
    seed: int = 0,
    state: str | Path | None = None,
    keep_state: bool = False,
    progress: bool | None = None,
) -> Eigenpairs:
    """Compute extreme eigenpairs of a symmetric operator.

    Every wanted eigenvalue is found with its multiplicity: converged pairs are locked, and a second
    search starts from a random vector orthogonal to them. It ends when it has converged to nothing
    new, or when a missing eigenvector would have appeared with probability at least 1 - 1e-4 (in
    exact arithmetic; see `hesspipe.linalg.krylov`).

    The number of products grows as the square root of the spread of the spectrum divided by the
    gaps at its ends. Where eigenvalues cluster, as at the zeros of a singular G, no method based on
    products alone converges in reasonable time: use `hesspipe.density` for counts there.

    Parameters
    ----------
    operator : any object with `shape`, `dtype` and `@`
        See `hesspipe.linalg.operator.symmetric_product`.
    num_smallest, num_largest : int
        Numbers of pairs from each end of the spectrum, smallest meaning most negative; by default
        the 10 largest. Together 1 to P: for a smaller P than the default, as in
        `scipy.sparse.linalg.eigsh`, the number has to be given.
    num_dominant : int
        Number of pairs with the largest absolute values, from whichever end they are; instead of
        the other two numbers. Both ends are searched, but only as far in as these values lie.
    tolerance : float
        Residual norms are at most tolerance * max|eigenvalue|; from 10 eps of the dtype to 0.1.
    max_products : int
        Products after which the search gives up.
    basis_size : int, optional
        Vectors of length P to store; more of them need fewer products. By default 2 k + 60 for k
        wanted pairs (benchmarks/eigenpairs.md), or as many as there is memory for, at least
        k + 8; the results are as exact. A search is resumed with as many as it had.
    seed : int
        Seed of the random start vectors.
    state : path, optional
        A safetensors file. The search is saved to it at every restart, resumed from it if it
        exists, and the file is deleted after success. Each of several processes needs another one.
        A damaged file is renamed and named in the log, and the search starts again.
    keep_state : bool
        Keep the file after success, e.g. until the eigenpairs are stored.
    progress : bool, optional
        Show a progress bar with the number of converged pairs, and how far the residuals are; by
        default if standard error is a terminal.

    Returns
    -------
    Eigenpairs

    Raises
    ------
    NotConvergedError
        The error carries the pairs that did converge.
    ValueError
        If an argument is out of range, or the state belongs to another problem.
    InUseError
        If another process has the state.
    TooLargeError
        Before allocating, if the basis does not fit into memory.

    Examples
    --------
    A double eigenvalue is found twice:

    >>> matrix = torch.diag(torch.tensor([-2.0, 0.0, 1.0, 5.0, 5.0], dtype=torch.float64))
    >>> found = eigenpairs(matrix, num_smallest=1, num_largest=2)
    >>> [round(float(value), 10) for value in found.eigenvalues]
    [-2.0, 5.0, 5.0]
    """
    product, scaling = scaled(symmetric_product(operator))
    num_smallest, num_largest, num_dominant = _numbers(num_smallest, num_largest, num_dominant)
    max_products = require_integer("max_products", max_products, 1)
    seed = require_integer("seed", seed, 0)
    tolerance = require_number("tolerance", tolerance)
    num_wanted = num_smallest + num_largest
    _check_arguments(product, num_wanted, tolerance)
    capacity = _capacity(product, num_wanted, basis_size, state)
    basis = KrylovBasis(product, capacity, seed, scaling)
    search = PairSearch(
        basis, num_smallest, num_largest, tolerance, max_products, num_dominant=num_dominant
    )
    settings: dict[str, Any] = {"num_smallest": num_smallest, "num_largest": num_largest}
    if num_dominant:
        settings = {"num_dominant": num_dominant}
    settings["tolerance"] = tolerance
    ranks = product.space.ranks
    with contextlib.nullcontext() if state is None else lock(path_of_rank(state, ranks)):
        if state is not None:
            search.state = _state(state, basis, settings)
            search.state.load()
        found = _run(search, scaling, progress)
        if search.state is not None and not keep_state:
            search.state.remove()
    settings |= {"max_products": max_products, "seed": seed}
    return replace(found, provenance=product.origin | {"eigenpairs": settings})


def _numbers(num_smallest: int, num_largest: int | None, num_dominant: int) -> tuple[int, int, int]:
    """Check the numbers of pairs; dominant ones are sought at the upper end until others appear."""
    num_smallest = require_integer("num_smallest", num_smallest, 0)
    num_dominant = require_integer("num_dominant", num_dominant, 0)
    if num_largest is None:
        num_largest = 0 if num_dominant else NUM_LARGEST
    num_largest = require_integer("num_largest", num_largest, 0)
    if num_dominant and (num_smallest or num_largest):
        raise ValueError(
            "num_dominant must be given without num_smallest and num_largest, got "
            f"{num_dominant} with {num_smallest} and {num_largest}"
        )
    return num_smallest, num_dominant or num_largest, num_dominant


def _state(path: str | Path, basis: KrylovBasis, settings: dict[str, Any]) -> SearchState:
    """The state of a search: one file, or one of each process that holds a part of the vectors."""
    ranks = basis.product.space.ranks
    if ranks is None:
        return SearchState(path, basis, settings)
    return RankState(path, basis, settings, ranks)


def _run(search: PairSearch, scaling: Scaling, progress: bool | None) -> Eigenpairs:
    """Run a search, and give the pairs the unit of the operator."""
    product, total = search.basis.product, search.num_wanted
    with tqdm(total=total, desc=f"eigenpairs, {product.name}", **bar_options(progress)) as bar:
        try:
            return times(search.run(bar), scaling.unit)
        except NotConvergedError as error:
            error.converged = times(error.converged, scaling.unit)
            raise


def _capacity(
    product: SymmetricProduct, num_wanted: int, basis_size: int | None, state: str | Path | None
) -> int:
    """Number of vectors in the basis."""
    if basis_size is None:
        return min(product.dim, _default_capacity(product, num_wanted, state))
    capacity = min(product.dim, require_integer("basis_size", basis_size, 1))
    if capacity < min(product.dim, num_wanted + 2):
        raise ValueError(f"basis_size must be at least {num_wanted + 2}, got {basis_size}")
    return capacity


def _default_capacity(product: SymmetricProduct, num_wanted: int, state: str | Path | None) -> int:
    """As many vectors as a saved search has, or else as many as are wanted and have room."""
    space = product.space
    least, whole = least_basis_capacity(num_wanted), basis_capacity(num_wanted)
    saved = 0 if state is None else saved_capacity(path_of_rank(state, space.ranks))
    vector_bytes = max(1, space.length) * torch.finfo(product.dtype).bits // 8
    room = available_on(product.device) // vector_bytes - vectors_of_search(num_wanted, 0)
    # All processes take the largest saved number, and the least room.
    own = torch.tensor([saved, -room], dtype=torch.float64, device="cpu")
    saved, missing = (int(number) for number in space.largest(own).tolist())
    if least <= saved <= whole:
        return saved
    if -missing < least:
        return whole  # which is refused
    capacity = min(whole, -missing)
    if capacity < min(whole, product.dim):
        _LOG.warning(
            "memory has no room for a basis of %d vectors of length P = %s: the search has one of "
            "%d, and makes more products", whole, f"{space.length:,}", capacity,
        )  # fmt: skip
    return capacity


def _check_arguments(product: SymmetricProduct, total: int, tolerance: float) -> None:
    if not 1 <= total <= product.dim:
        raise ValueError(
            f"num_smallest + num_largest must be 1 to P = {product.dim}, got {total}; write "
            f"num_largest={product.dim} for all pairs of so small a matrix"
            if total > product.dim
            else f"num_smallest + num_largest must be 1 to P = {product.dim}, got {total}"
        )
    least = 10 * torch.finfo(product.dtype).eps
    if not tolerance >= least:
        raise ValueError(
            f"tolerance must be at least {least} in {product.dtype}, got {tolerance}; "
            "raise it or compute in float64"
        )
    if tolerance > LARGEST_TOLERANCE:
        raise ValueError(
            f"tolerance must be at most {LARGEST_TOLERANCE}, got {tolerance}: a residual of that "
            "share of the largest eigenvalue says nothing of the others"
        )
