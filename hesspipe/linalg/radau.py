"""Bounds on the distribution function of a measure that is known by its Gauss quadrature.

Of the measure of a start vector, Lanczos knows the moments up to twice the number of steps. One
more node can be prescribed, at a point t (Gauss-Radau). The nodes are the eigenvalues of

    [ diag(nodes)   couplings ]
    [ couplings^T   corner    ],     corner = t + sum of couplings^2 / (nodes - t),

and the weights the squares of the components of their eigenvectors along the start vector. For
any corner, the weights to the left of a node, without and with its own, bound the measure of what
lies below and up to the node (Chebyshev, Markov, Stieltjes). With the node at t no bound from the
same moments is sharper. The weight at t is tiny in a gap of the spectrum, and that of a node in
its bulk.

References
----------
Golub, Meurant (2010), Matrices, Moments and Quadrature, sections 6.2 and 7.2.
Szego (1939), Orthogonal Polynomials, section 3.41, for the inequalities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# The corner is large where t is next to a node. It is cut off at this multiple of the largest
# node, beyond which its rounding would reach the other nodes; the node is then only near t.
_LARGEST_CORNER = 16.0
# Points whose rules are computed at once: 50 MB for 3 probes of 80 steps.
_POINTS_AT_ONCE = 256
# Rounding of a sum of weights, which add up to 1, in units of eps.
_WEIGHT_ROUNDINGS = 100.0


@dataclass(frozen=True)
class Rules:
    """Gauss quadratures, one row per probe, with what one more node needs.

    Attributes
    ----------
    nodes, weights : Tensor, shape (probes, steps)
        float64; the weights of a row add up to 1.
    couplings : Tensor, shape (probes, steps)
        Last components of the eigenvectors whose first components are the positive roots of the
        weights, times the norm that the next Lanczos step divides by. Their absolute values are
        the residual norms of the Ritz vectors.
    """

    nodes: Tensor
    weights: Tensor
    couplings: Tensor

    def bounds(self, points: Tensor, resolution: float) -> tuple[Tensor, Tensor]:
        """Bound the measure of (-inf, t] for each probe.

        Parameters
        ----------
        points : Tensor, shape (n,)
            The t, float64.
        resolution : float
            Distance by which eigenvalues may be shifted by rounding: the bounds are those at
            t - resolution and at t + resolution.

        Returns
        -------
        low, high : Tensor, shape (probes, n)
        """
        unit = 2.0 ** -math.frexp(float(self.nodes.abs().max()))[1]  # squares do not underflow
        scaled = Rules(self.nodes * unit, self.weights, self.couplings * unit)
        rounding = _WEIGHT_ROUNDINGS * torch.finfo(torch.float64).eps
        lows, highs = [], []
        for part in (points * unit).split(_POINTS_AT_ONCE):
            lows.append(scaled._left_of(part, -resolution * unit))
            # By symmetry, what lies to the right of t is what lies to the left of -t.
            highs.append(1 - scaled._mirrored()._left_of(-part, -resolution * unit))
        low, high = torch.cat(lows, dim=1), torch.cat(highs, dim=1)
        return (low - rounding).clamp(0, 1), (high + rounding).clamp(0, 1)

    def _left_of(self, points: Tensor, shift: float) -> Tensor:
        """Bound the measure of (-inf, t] from below by a rule with a node at t + shift."""
        margin = 4 * float(self.nodes.abs().max())
        placed = (points + shift).clamp(
            float(self.nodes.min()) - margin, float(self.nodes.max()) + margin
        )
        limits = (points + shift / 2).unsqueeze(1)
        # The Gauss rule itself is sharper where the corner is cut off.
        shape = len(self.nodes), len(points), self.nodes.shape[1]
        gauss = (self.nodes.unsqueeze(1).expand(shape), self.weights.unsqueeze(1).expand(shape))
        radau = self._with_node_at(placed)  # each (probes, n, steps + 1)
        return torch.maximum(_before_last(*gauss, limits), _before_last(*radau, limits))

    def _with_node_at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Compute nodes, ascending, and weights of the Radau rules, (probes, n, steps + 1)."""
        num_probes, size = self.nodes.shape
        distances = self.nodes.unsqueeze(1) - points.unsqueeze(1)  # (probes, n, steps)
        squares = self.couplings.square().unsqueeze(1).expand_as(distances)
        # A node at t is a node of the rule already if it is not coupled.
        terms = torch.where(squares == 0, squares, squares / distances)
        limit = _LARGEST_CORNER * float(self.nodes.abs().max())
        corner = (points + terms.sum(2)).clamp(-limit, limit)
        arrow = torch.zeros(
            num_probes, len(points), size + 1, size + 1, dtype=torch.float64, device="cpu"
        )
        arrow.diagonal(dim1=2, dim2=3)[..., :size] = self.nodes.unsqueeze(1)
        arrow[..., size, :size] = arrow[..., :size, size] = self.couplings.unsqueeze(1)
        arrow[..., size, size] = corner
        nodes, vectors = torch.linalg.eigh(arrow)
        starts = self.weights.sqrt()[:, None, None, :]  # (probes, 1, 1, steps)
        return nodes, (starts @ vectors[..., :size, :]).squeeze(2).square()

    def _mirrored(self) -> Rules:
        return Rules(-self.nodes.flip(1), self.weights.flip(1), self.couplings.flip(1))


def _before_last(nodes: Tensor, weights: Tensor, limits: Tensor) -> Tensor:
    """Add the weights before the last node up to each limit (n, 1), all (probes, n, nodes)."""
    before = weights.cumsum(2) - weights
    last = ((nodes <= limits).sum(2) - 1).clamp(min=0)
    return before.gather(2, last.unsqueeze(2)).squeeze(2)
