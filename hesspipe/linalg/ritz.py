"""Eigenpairs with true residual norms, from products made for this purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hesspipe.linalg.operator import SymmetricProduct
from hesspipe.plots.plotted import Plotted
from hesspipe.summaries import ends, layout, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Rows of vectors that are rotated at once.
_ROWS_AT_ONCE = 2**16


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
        |A v - lambda v|, from additional products. Each interval lambda +- residual norm contains
        an eigenvalue of A.
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
