"""Trace and Frobenius norm from few products, by exchangeable estimators.

Each of s random vectors is the test vector for the directions Q_i that A times the others span:

    t_i = tr(Q_i^T A Q_i) + g_i^T Z_i A Z_i g_i,          Z_i = 1 - Q_i Q_i^T
    f_i = ||A Q_i||_F^2   + ||A Z_i g_i||^2,

and the estimates are the averages over i. Every product serves for the directions and for the
averages, where Hutch++ has separate ones. From A times the vectors and A times a basis of these
images, 2 s products, all t_i and f_i follow by small matrices.

The error bar lies between two: the spread of the t_i over the root of s, as if they were
independent, is too small, because they share vectors. The jackknife, which computes the average
again without each of the vectors, is too large (Efron, Stein). Over 300 seeds on eight spectra, the
geometric mean of the two is closest to the errors (benchmarks/coverage.md).

References
----------
Epperly, Tropp, Webber (2024), XTrace: Making the Most of Every Sample in Stochastic Trace
Estimation. Efron, Stein (1981), The Jackknife Estimate of Variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hesspipe.linalg.vector_space import VectorSpace

# A diagonal entry of R below this multiple of eps times the largest is rounding: A has no more
# directions than the vectors.
_RANK_ROUNDINGS = 100.0


@dataclass(frozen=True)
class Sketch:
    """Small matrices in the coordinates of Q, from which the estimates follow.

    Attributes
    ----------
    vectors : Tensor, shape (s, s)
        Q^T g of the test vectors g of norm sqrt(P).
    images : Tensor, shape (s, s)
        R = Q^T A g; upper triangular.
    forms, squares : Tensor, shape (s,)
        g^T A g and |A g|^2.
    compressed, gram, mixed : Tensor, shape (s, s)
        Q^T A Q, (A Q)^T (A Q) and (A Q)^T (A g).
    dim : int
        P.
    """

    vectors: Tensor
    images: Tensor
    forms: Tensor
    squares: Tensor
    compressed: Tensor
    gram: Tensor
    mixed: Tensor
    dim: int

    def without(self, index: int) -> Sketch:
        """Leave out one of the vectors."""
        kept = torch.arange(len(self.forms), device="cpu") != index
        turn, images = torch.linalg.qr(self.images[:, kept])  # (s, s - 1), (s - 1, s - 1)
        return Sketch(
            turn.T @ self.vectors[:, kept],
            images,
            self.forms[kept],
            self.squares[kept],
            turn.T @ self.compressed @ turn,
            turn.T @ self.gram @ turn,
            turn.T @ self.mixed[:, kept],
            self.dim,
        )

    def estimates(self) -> tuple[Tensor, Tensor]:
        """Compute t_i and f_i, each (s,)."""
        inverse = torch.linalg.inv(self.images).T
        missing = inverse / inverse.norm(dim=0)  # columns: the part of Q that Q_i lacks
        known = self.vectors - missing * (missing * self.vectors).sum(0)  # Q_i^T g_i
        # Z_i g_i is as long as it is on average: a variance less.
        size = self.dim - len(self.forms) + 1
        factors = size / (self.dim - known.square().sum(0))
        forms = (
            self.forms
            - 2 * (known * self.images).sum(0)
            + (known * (self.compressed @ known)).sum(0)
        )
        norms = (
            self.squares - 2 * (known * self.mixed).sum(0) + (known * (self.gram @ known)).sum(0)
        )
        traces = self.compressed.trace() - (missing * (self.compressed @ missing)).sum(0)
        squares = self.gram.trace() - (missing * (self.gram @ missing)).sum(0)
        return traces + factors * forms, squares + factors * norms


def sketch(
    vectors: Tensor,
    images: Tensor,
    basis: Tensor,
    basis_images: Tensor,
    space: VectorSpace | None = None,
) -> Sketch:
    """Reduce vectors, A times them, an orthonormal basis Q of that, and A Q, each (P, s)."""
    space = space or VectorSpace(len(vectors))
    return Sketch(
        vectors=space.inner(basis.T, vectors).double().cpu(),
        images=space.inner(basis.T, images).double().cpu().triu(),
        forms=space.sum((vectors * images).sum(0)).double().cpu(),
        squares=space.sum(images.square().sum(0)).double().cpu(),
        compressed=space.inner(basis.T, basis_images).double().cpu(),
        gram=space.inner(basis_images.T, basis_images).double().cpu(),
        mixed=space.inner(basis_images.T, images).double().cpu(),
        dim=space.dim,
    )


def estimate(small: Sketch, eps: float) -> list[tuple[float, float]]:
    """Estimate trace and squared Frobenius norm, each with its standard error."""
    sizes = small.images.diagonal().abs()
    if float(sizes.min()) <= _RANK_ROUNDINGS * eps * float(sizes.max()):
        rounding = 10 * eps * float(sizes.max())
        norm = float(small.gram.trace())
        return [(float(small.compressed.trace()), rounding), (norm, rounding * norm**0.5)]
    count = len(small.forms)
    again = [small.without(index).estimates() for index in range(count)]
    results = []
    for which, samples in enumerate(small.estimates()):
        means = torch.stack([each[which].mean() for each in again])
        spread = samples.var() / count
        jackknife = (count - 1) / count * (means - means.mean()).square().sum()
        results.append((float(samples.mean()), float((spread * jackknife) ** 0.25)))
    return results
