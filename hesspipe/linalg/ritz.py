"""Eigenpairs with true residual norms, from products made for this purpose.

One product with each vector gives the residuals. Where a Krylov relation predicts them, one product
is enough to trust all of them: let E be the errors of the predictions, a matrix with a column for
each of k vectors. With normal numbers g, E g is normal along the first singular vector of E, with
at least the largest singular value s as its standard deviation, so that |E g| < d s has a
probability below d. What is seen of |E g| bounds s, and with it the error of every residual, by
|E g| / d. Where d s would be less than the rounding of a product, n independent vectors g tell: for
all of them, |E g| < d s has a probability below d^n.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hesspipe.linalg.operator import SymmetricProduct
from hesspipe.plots.plotted import Plotted
from hesspipe.seeding import generator
from hesspipe.summaries import ends, layout, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Rows of vectors that are rotated at once.
_ROWS_AT_ONCE = 2**16
# Probability that predicted residuals are believed though one is wrong by more than is allowed.
_DELTA = 1e-4
# Rounding of a product with a combination of vectors, in units of eps of the largest eigenvalue;
# where less than that would have to be seen, no product is tried.
_ROUNDING = 20.0


@dataclass(frozen=True)
class Eigenpairs(Plotted):
    """Extreme eigenvalues and eigenvectors of a symmetric matrix.

    `plot` draws the eigenvalues of both ends in their order, with residual norms as error bars, on
    a logarithmic axis; if there are negative ones, on both sides of zero.

    Attributes
    ----------
    eigenvalues : Tensor, shape (k,)
        float64, ascending, on the CPU: first the num_smallest, then the num_largest.
    eigenvectors : Tensor, shape (P, k)
        Orthonormal columns, in the operator's dtype and on its device.
    residual_norms : Tensor, shape (k,)
        |A v - lambda v|, from additional products: one with each v, or one with a random
        combination of them, or a few, which confirm to a small part of the tolerance what the
        search has computed of them. Each interval lambda +- residual norm contains an eigenvalue
        of A.
    num_products : int
        Products with A, including those for the residuals.
    matrix : str
        Name of the operator: "hessian", "ggn" or "residual", or "operator" for any other.
    num_smallest, num_largest : int
    provenance : mapping
        What decided the numbers, as far as it is known, for `hesspipe.save`: the settings, the
        dtype, and of an objective the number of samples.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    residual_norms: Tensor
    num_products: int
    matrix: str
    num_smallest: int
    num_largest: int
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        return summary(
            "Eigenpairs",
            matrix=str(self.matrix),
            num_smallest=self.num_smallest,
            num_largest=self.num_largest,
            eigenvalues=ends(self.eigenvalues),
            residual_norms=ends(self.residual_norms),
            eigenvectors=layout(self.eigenvectors),
            num_products=self.num_products,
        )

    def _draw(self, ax: Axes | None) -> Axes:
        from hesspipe.plots.spectra import plot_ends

        values, norms = self.eigenvalues.numpy(), self.residual_norms.numpy()
        return plot_ends(ax, values, norms, self.num_smallest, self.matrix)


def true_pairs(
    product: SymmetricProduct, rows: Tensor, num_smallest: int, num_products: int
) -> tuple[Eigenpairs, Tensor]:
    """Compute the Ritz pairs of nearly orthonormal rows (k, P); see `pairs_of_orthonormal`."""
    columns = product.space.orthonormal(rows.T)
    return pairs_of_orthonormal(product, columns, num_smallest, num_products)


def pairs_of_orthonormal(
    product: SymmetricProduct, columns: Tensor, num_smallest: int, num_products: int
) -> tuple[Eigenpairs, Tensor]:
    """Compute the Ritz pairs of a few vectors, and their true residuals.

    Parameters
    ----------
    product : SymmetricProduct
    columns : Tensor, shape (P, k)
        Orthonormal; replaced by the eigenvectors.
    num_smallest : int
        Number of pairs at the lower end.
    num_products : int
        Number of products made before.

    Returns
    -------
    Eigenpairs
    residuals : Tensor, shape (P, k)
        A v - lambda v.
    """
    space = product.space
    residuals = torch.zeros_like(columns)
    for column, vector in enumerate(columns.T):
        residuals[:, column] = product.multiply(vector.contiguous())
    compressed = space.inner(columns.T, residuals).double().cpu()  # (k, k)
    values, rotation = space.agreed(*torch.linalg.eigh(compressed))
    turn, scales = rotation.to(columns), values.to(columns)
    # In place: of the largest problems, a third array of this size would not fit.
    for vectors, images in zip(
        columns.split(_ROWS_AT_ONCE), residuals.split(_ROWS_AT_ONCE), strict=True
    ):
        vectors.copy_(vectors @ turn)
        images.copy_(images @ turn - vectors * scales)
    pairs = Eigenpairs(
        eigenvalues=values,
        eigenvectors=columns,
        residual_norms=space.norm(residuals, dim=0).double().cpu(),
        num_products=num_products + len(values),
        matrix=product.name,
        num_smallest=num_smallest,
        num_largest=len(values) - num_smallest,
    )
    return pairs, residuals


def subset(pairs: Eigenpairs, is_chosen: Tensor) -> Eigenpairs:
    """Select pairs by a mask (k,), in the same order."""
    num_smallest = int(is_chosen[: pairs.num_smallest].sum())
    return replace(
        pairs,
        eigenvalues=pairs.eigenvalues[is_chosen],
        eigenvectors=pairs.eigenvectors[:, is_chosen.to(pairs.eigenvectors.device)],
        residual_norms=pairs.residual_norms[is_chosen],
        num_smallest=num_smallest,
        num_largest=int(is_chosen.sum()) - num_smallest,
    )


def times(pairs: Eigenpairs, unit: float) -> Eigenpairs:
    """Multiply the matrix by a positive number."""
    return replace(
        pairs,
        eigenvalues=pairs.eigenvalues * unit,
        residual_norms=pairs.residual_norms * unit,
    )


def confirmed_pairs(
    product: SymmetricProduct,
    columns: Tensor,
    predicted: tuple[Tensor, Tensor, Tensor],
    num_smallest: int,
    num_products: int,
    allowed: float,
) -> tuple[Eigenpairs | None, int]:
    """Confirm predicted residuals by fewer products than pairs; see the module docstring.

    Parameters
    ----------
    product : SymmetricProduct
    columns : Tensor, shape (P, k)
        Orthonormal vectors.
    predicted : tuple of Tensor
        Their Ritz values (k,), float64 and ascending; their couplings (k,), float64; and a unit
        vector (P,): that of column i is A v_i - values[i] v_i = couplings[i] * unit vector.
    num_smallest, num_products : int
        As for `pairs_of_orthonormal`.
    allowed : float
        What a residual norm may be.

    Returns
    -------
    Eigenpairs, or None
        None if some residual norm may be larger, with a probability of 1e-4 or more: the products
        with all vectors have to tell.
    num_products : int
        With those that were made, if any.
    """
    values, couplings, rest = predicted
    rounding = _ROUNDING * torch.finfo(product.dtype).eps * float(values.abs().max())
    number, left = _probes(allowed - float(couplings.abs().max()), rounding, len(values))
    if number == 0:
        return None, num_products
    random, error = generator(0, "confirmed residuals"), 0.0
    for _ in range(number):
        weights = torch.randn(len(values), generator=random, dtype=torch.float64, device="cpu")
        image = product.multiply(columns @ weights.to(columns))  # (P,)
        image -= columns @ (values * weights).to(columns)
        image -= float(couplings @ weights) * rest
        num_products += 1
        error = max(error, float(product.space.norm(image)))
        if not error <= left:
            return None, num_products
    pairs = Eigenpairs(
        eigenvalues=values,
        eigenvectors=columns,
        residual_norms=(couplings.square() + error**2 / len(values)).sqrt(),
        num_products=num_products,
        matrix=product.name,
        num_smallest=num_smallest,
        num_largest=len(values) - num_smallest,
    )
    return pairs, num_products


def _probes(largest: float, rounding: float, num_pairs: int) -> tuple[int, float]:
    """Choose how many products confirm residuals, and what each may show of their errors.

    Parameters
    ----------
    largest : float
        What the errors may be.
    rounding : float
        Of a product: less cannot be seen.
    num_pairs : int
        As many products would tell the residuals themselves.

    Returns
    -------
    number : int
        0 if it takes as many.
    left : float
    """
    for number in range(1, max(num_pairs, 2)):
        left = largest * float(_DELTA ** (1 / number))
        if left >= rounding:
            return number, left
    return 0, 0.0
