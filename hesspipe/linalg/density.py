"""The spectral density of a symmetric operator by stochastic Lanczos quadrature.

A random start vector has, on average, the same share of each eigenvector. The eigenvalues of its
Lanczos matrix, weighted by the squares of the first entries of their eigenvectors, are a Gauss
quadrature of the density with these shares: nodes and weights. Several probes give an average and
a standard error, and bounds on the numbers of eigenvalues (`hesspipe.linalg.counts`).

References
----------
Golub, Meurant (2010), Matrices, Moments and Quadrature, chapter 6; Ubaru, Chen, Saad (2017), Fast
Estimation of tr(f(A)) via Stochastic Lanczos Quadrature; Ghorbani, Krishnan, Xiao (2019).
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from hesspipe.forecasts import VECTORS_OF_A_LEAN_PRODUCT, density_bytes
from hesspipe.hardware import available_on, require
from hesspipe.linalg.arguments import require_integer
from hesspipe.linalg.lanczos import Tridiagonalization, tridiagonalize
from hesspipe.linalg.lanczos_basis import HALF_OF, LanczosBasis, RoundedBasis
from hesspipe.linalg.operator import SymmetricProduct, random_normal, symmetric_product
from hesspipe.linalg.spectral_density import Density
from hesspipe.progress import bar_options
from hesspipe.seeding import generator

# Defaults for a quick look; Ghorbani, Krishnan, Xiao (2019) took 10 probes of 90 steps.
NUM_PROBES = 3
NUM_STEPS = 80
_LOG = logging.getLogger(__name__)


def density(
    operator: Any,
    *,
    num_probes: int = NUM_PROBES,
    num_steps: int = NUM_STEPS,
    seed: int = 0,
    progress: bool | None = None,
) -> Density:
    """Estimate the spectral density of a symmetric operator.

    Full reorthogonalization is used, at the cost of storing num_steps vectors of length P:
    without it, copies of the extreme eigenvalues would replace nodes of the bulk. Where memory has
    no room for them, they are rounded to half of their bits, which the log says; the quadrature is
    as exact (`hesspipe.linalg.lanczos_basis`), but counts of outliers are intervals.

    Parameters
    ----------
    operator : any object with `shape`, `dtype` and `@`
        See `hesspipe.linalg.operator.symmetric_product`.
    num_probes : int
        Random vectors; at least 2 are needed for standard errors, which are nan for 1, and 3
        for exact counts. Errors decrease as 1 / sqrt(num_probes * P).
    num_steps : int
        Lanczos steps of each probe, at most P. The resolution is about the spectrum's spread
        divided by num_steps, and finer at its ends.
    seed : int
        Each probe derives its own generator from it, so that more probes only add rows.
    progress : bool, optional
        Show a progress bar; by default if standard error is a terminal.

    Returns
    -------
    Density

    Raises
    ------
    TooLargeError
        Before allocating, if the vectors do not fit into memory, rounded either.
    ValueError
        If num_probes or num_steps is out of range.

    Examples
    --------
    >>> diagonal = torch.tensor([1.0] * 900 + [5.0] * 100, dtype=torch.float64)
    >>> found = density(torch.diag(diagonal), num_probes=10, num_steps=2)
    >>> found.count(low=3.0).low <= 100 <= found.count(low=3.0).high
    True
    """
    product = symmetric_product(operator)
    num_probes, num_steps = _require_numbers(product, num_probes, num_steps)
    is_rounded = _is_rounded(product, num_steps)
    rows, squared_lengths, num_products, asymmetry = [], [], 0, 0.0
    for probe in range(num_probes):
        steps = _steps(num_steps, f"density, probe {probe + 1}/{num_probes}", progress)
        found, squared_length = _tridiagonalize(product, seed, probe, is_rounded, steps)
        row, vectors = _quadrature(found, num_steps)
        num_products += len(vectors)
        rows.append(row)
        squared_lengths.append(squared_length)
        asymmetry = max(asymmetry, found.asymmetry)
        if probe < num_probes - 1 or is_rounded:
            del found  # before the next one is allocated
    overlaps = torch.zeros(num_probes - 1, num_steps, dtype=torch.float64, device="cpu")
    for probe, overlap in enumerate(() if is_rounded else overlaps):
        overlap[: len(vectors)] = _components(product, seed, probe, found) @ vectors
    nodes, weights, couplings = torch.stack(rows).unbind(1)
    settings = {"num_probes": num_probes, "num_steps": num_steps, "seed": seed}
    return Density(
        nodes=nodes,
        weights=weights,
        couplings=couplings,
        squared_lengths=torch.tensor(squared_lengths, dtype=torch.float64, device="cpu"),
        overlaps=overlaps,
        dim=product.dim,
        matrix=product.name,
        num_products=num_products,
        eps=torch.finfo(product.dtype).eps,
        asymmetry=asymmetry,
        provenance=product.origin | {"density": settings | _rounding(product, is_rounded)},
    )


def _require_numbers(product: SymmetricProduct, num_probes: int, num_steps: int) -> tuple[int, int]:
    """Raise an error for numbers that are out of range, or steps too many for memory."""
    num_probes = require_integer("num_probes", num_probes, 1)
    num_steps = require_integer("num_steps", num_steps)
    if not 1 <= num_steps <= product.dim:
        advice = f"; write num_steps={product.dim} for so small a matrix" * (num_steps > 0)
        raise ValueError(f"num_steps must be 1 to P = {product.dim}, got {num_steps}{advice}")
    return num_probes, num_steps


def _is_rounded(product: SymmetricProduct, num_steps: int) -> bool:
    """Whether the basis must be rounded to have room; raise an error if it has none then either."""
    space, half = product.space, HALF_OF[product.dtype]
    element_bytes = torch.finfo(product.dtype).bits // 8
    least, preferred = density_bytes(num_steps, space.length, element_bytes)
    missing = preferred - available_on(product.device)
    # All processes decide alike.
    if space.largest(torch.tensor(float(missing), dtype=torch.float64, device="cpu")) <= 0:
        return False
    what = f"a Lanczos basis of {num_steps} vectors of length P = {space.length:,}"
    require(
        least,
        f"{what} in {half}, with {VECTORS_OF_A_LEAN_PRODUCT} others,",
        "use fewer steps, or float32",
        device=product.device,
    )
    _LOG.warning("memory has no room for %s: all but the last two are rounded to %s", what, half)
    return True


def _rounding(product: SymmetricProduct, is_rounded: bool) -> dict[str, str]:
    return {"basis": str(HALF_OF[product.dtype]).removeprefix("torch.")} if is_rounded else {}


def _steps(num_steps: int, label: str, progress: bool | None) -> tqdm[int]:
    return tqdm(range(num_steps), label, **bar_options(progress), unit="step")


def _start(product: SymmetricProduct, seed: int, probe: int) -> Tensor:
    stream = generator(require_integer("seed", seed, 0), f"density probe {probe}")
    return random_normal(product, stream)


def _tridiagonalize(
    product: SymmetricProduct, seed: int, probe: int, is_rounded: bool, steps: tqdm[Any]
) -> tuple[Tridiagonalization, float]:
    """Tridiagonalize from the start vector of a probe; return its squared length, too."""
    basis = (RoundedBasis if is_rounded else LanczosBasis)(product, len(steps))
    lengths: list[float] = []
    # Nothing here refers to the start vector while Lanczos needs the memory.
    found = tridiagonalize(
        product, _unit_start(product, seed, probe, lengths), len(steps), steps=steps, basis=basis
    )
    return found, lengths[0]


def _unit_start(
    product: SymmetricProduct, seed: int, probe: int, squared_lengths: list[float]
) -> Tensor:
    """Return the normalized start vector of a probe, and append its squared length to a list."""
    start, space = _start(product, seed, probe), product.space
    squared_lengths.append(float(space.sum(start.double().square().sum())))
    unit: Tensor = start / space.norm(start)
    return unit


def _quadrature(found: Tridiagonalization, num_steps: int) -> tuple[Tensor, Tensor]:
    """Compute nodes, weights and couplings (3, num_steps), and the eigenvectors (k, k) of T."""
    tridiagonal = found.matrix.double().cpu()
    unit = math.ldexp(1.0, math.frexp(float(tridiagonal.abs().max()))[1] - 1)
    nodes, vectors = torch.linalg.eigh(tridiagonal / unit)
    nodes *= unit
    vectors *= torch.where(vectors[0] < 0, -1.0, 1.0)
    size, row = len(nodes), torch.zeros(3, num_steps, dtype=torch.float64, device="cpu")
    row[0, :size], row[0, size:] = nodes, nodes[-1]
    row[1, :size] = vectors[0].square()
    row[2, :size] = found.residual_norm * vectors[-1]
    return row, vectors


def _components(
    product: SymmetricProduct, seed: int, probe: int, found: Tridiagonalization
) -> Tensor:
    """Scalar products (k,) of the start vector of a probe, normalized, with another's basis."""
    space, start = product.space, _start(product, seed, probe)
    components: Tensor = space.inner(found.basis, start / space.norm(start)).double().cpu()
    return components
