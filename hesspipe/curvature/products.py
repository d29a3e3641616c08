"""Products of H, G and R with vectors on one batch, by reverse-mode differentiation.

    H v   the derivative of <v, dL/dtheta>; the graph of dL/dtheta is built once and kept
    R v   the same for <e, f(theta)>, with e = dL/df held constant
    G v   J^T (S (J v)): J v is the derivative by u of J^T u, which is linear in u, and S u the
          derivative of <u, dL/df>; all three graphs are kept

All outputs for the batch are one vector f here. So L need not be a sum over samples: S = d2L/df2
may couple them, and outputs may have any shape.

With the graph kept, a Linear layer takes 6 matrix products for H v and 4 for G v (the first layer
2), as many as a hand-written R-operator; forward mode needs no fewer. Forward mode is not used
because in torch 2.13 `torch.func.hessian` of a network with LayerNorm is not even symmetric, while
differentiating twice in reverse mode agrees with finite differences.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hesspipe.curvature.matrix import Matrix
from hesspipe.errors import InconsistentMatrixError
from hesspipe.objective.batches import Batch
from hesspipe.objective.objective import Objective
from hesspipe.objective.rounding import is_perturbing
from hesspipe.seeding import probe
from hesspipe.tolerances import agrees

# Several vectors at once are faster while their arrays fit into a CPU's cache. Measured on one
# core, ms per vector with 1 and 32 at once: 0.19 and 0.06 for a graph of 0.1 MiB, 0.37 and 0.24
# for 0.4 MiB, 1.2 and 1.8 for 2 MiB.
_CACHE_BYTES = 8 * 2**20
_MOST_AT_ONCE = 32

# Entries of the vector u that J^T u is formed with: like slopes of a mean over a thousand samples.
_PULLED = 2.0**-10

# Values and the point to differentiate them by: a product is a chain of Jacobians.
Link: TypeAlias = tuple[Tensor, Tensor]


class BatchProduct:
    """Products of one matrix with vectors on one batch, with the graphs kept.

    Build and call it in `hesspipe.objective.differentiability.differentiating`.

    Parameters
    ----------
    objective : Objective
    matrix : Matrix
    batch : Batch
    is_divided : bool
        Whether other processes have other parts of the vectors.
    is_checked : bool
        Whether J has been compared with its transpose at this theta, on this batch.

    Attributes
    ----------
    is_checked : bool
        Whether J v, where it is a part of the products, has been compared with the transpose of J.
    term : Tensor or None
        The batch's term of L, where the graph begins with it: for H.
    """

    def __init__(
        self,
        objective: Objective,
        matrix: Matrix,
        batch: Batch,
        *,
        is_divided: bool = False,
        is_checked: bool = False,
    ) -> None:
        theta = objective.theta.clone().requires_grad_()
        self.is_checked = is_checked or is_divided or matrix is not Matrix.GGN
        self._device = theta.device
        self.term: Tensor | None = None
        if matrix is Matrix.HESSIAN:
            term = _term(objective, theta, batch)
            self.term, self._links = term.detach(), _gradient_link(term, theta)
        else:
            self._links = _LINKS[matrix](objective, theta, batch)

    @functools.cached_property
    def graph_bytes(self) -> int:
        """Memory of the graphs."""
        return graph_bytes([values for values, _ in self._links])

    def __call__(self, vectors: Tensor) -> Tensor:
        """Multiply the vectors, shape (K, P), all at once; the result has the same shape."""
        rows = vectors
        for place, (values, point) in enumerate(self._links):
            moved = pull_back(values, point, rows)
            if place == 0 and not self.is_checked:
                self.is_checked = require_adjoint(self._links[0], rows[0], moved[0])
            rows = moved
        return rows

    @property
    def gradient(self) -> Tensor:
        """Gradient of the batch's term of L, (P,)."""
        if len(self._links) == 1:  # H and R are derivatives of it
            return self._links[0][0].detach()
        _, (slopes, _), (outputs, theta) = self._links
        return pull_back(outputs, theta, slopes.detach().unsqueeze(0))[0]

    def num_at_once(self, block_bytes: int) -> int:
        """Return the number of vectors to multiply at once, by memory and cache size."""
        return num_at_once(self.graph_bytes, self._device, block_bytes)


def num_at_once(num_bytes: int, device: torch.device, block_bytes: int) -> int:
    """Return the number of vectors to multiply with graphs of so many bytes at once."""
    budget = min(block_bytes, _CACHE_BYTES) if device.type == "cpu" else block_bytes
    return max(1, min(_MOST_AT_ONCE, budget // max(1, num_bytes)))


def _term(objective: Objective, theta: Tensor, batch: Batch) -> Tensor:
    """The batch's term of L(theta), with a graph: H is the derivative of its gradient."""
    loss = objective.batch_loss(theta, batch)
    objective.require_unchanged(batch, loss)
    return loss if batch.share == 1 else batch.share * loss


def _residual_links(objective: Objective, theta: Tensor, batch: Batch) -> list[Link]:
    """R from the gradient of <e, f(theta)>, with e constant."""
    outputs = objective.output_vector(theta, batch)  # (K,)
    _, slopes = slopes_of_vector(objective, outputs, batch)
    return _gradient_link((slopes.detach() * outputs).sum(), theta)


def _gradient_link(scalar: Tensor, theta: Tensor) -> list[Link]:
    (gradient,) = torch.autograd.grad(scalar, theta, create_graph=True, materialize_grads=True)
    return [(gradient, theta)]


def _ggn_links(objective: Objective, theta: Tensor, batch: Batch) -> list[Link]:
    """J^T u by u, dL/df by f, and f by theta: applied in this order, they are J, S and J^T."""
    outputs = objective.output_vector(theta, batch)  # (K,)
    forward = forward_link(outputs, theta)
    leaf, slopes = slopes_of_vector(objective, outputs, batch)
    return [forward, (slopes, leaf), (outputs, theta)]


def forward_link(outputs: Tensor, theta: Tensor) -> Link:
    """J^T u and u: a product with this link is J v, because J^T u is linear in u.

    u is not zero: where torch takes its logarithm (`logcumsumexp`), J^T u has no derivative there.

    Parameters
    ----------
    outputs : Tensor, shape S
        With a graph, or the product is zero.
    theta : Tensor, shape (P,)

    Returns
    -------
    Link
    """
    # Operations that are not perturbed where rounding is measured.
    pulled = torch.full_like(outputs, _PULLED, requires_grad=False).copysign(probe(outputs))
    pulled.requires_grad_()
    (combined,) = torch.autograd.grad(
        outputs, theta, pulled, create_graph=True, materialize_grads=True
    )
    return combined, pulled


def require_adjoint(link: Link, vector: Tensor, change: Tensor) -> bool:
    """Raise an error unless <J^T u, v> = <u, J v> for the vector v and its product J v.

    Returns
    -------
    bool
        Whether this was a check: not with a vector of zeros, nor where rounding is measured.

    Raises
    ------
    InconsistentMatrixError
    """
    if is_perturbing():
        return False
    combined, pulled = (part.detach() for part in link)
    found, expected = (pulled * change).sum(), (combined * vector).sum()
    scale = pulled.norm() * change.norm() + combined.norm() * vector.norm()
    if not torch.isfinite(scale):
        return False
    if not agrees(found, expected, scale):
        raise InconsistentMatrixError(
            "products with the Jacobian of the outputs must be adjoint to those with its transpose,"
            f" got {float(found):.3e} and {float(expected):.3e}; an operation of the network has a "
            "wrong second derivative: write it with other operations of torch"
        )
    return bool(scale > 0)


def slopes_of_vector(objective: Objective, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Differentiate the batch's term of L by the outputs, as a leaf f: f and dL/df, (K,)."""
    leaf = outputs.detach().requires_grad_()
    loss = objective.loss_of_vector(leaf, batch)
    objective.require_unchanged(batch, loss)
    (slopes,) = torch.autograd.grad(
        batch.share * loss, leaf, create_graph=True, materialize_grads=True
    )
    return leaf, slopes


_LINKS: dict[Matrix, Callable[[Objective, Tensor, Batch], list[Link]]] = {
    Matrix.GGN: _ggn_links,
    Matrix.RESIDUAL: _residual_links,
}


def pull_back(values: Tensor, point: Tensor, vectors: Tensor) -> Tensor:
    """Multiply vectors with the Jacobian of values: rows v^T (d values / d point).

    One batched backward pass computes them. A random combination of its rows is compared with a
    plain pass; where they differ, or an operation of the network has no batched derivative, the
    rows are computed one at a time.

    Parameters
    ----------
    values : Tensor, shape S
        With a graph; without one the rows are zero.
    point : Tensor, shape T
    vectors : Tensor, shape (K, *S)

    Returns
    -------
    Tensor, shape (K, *T)
    """
    return pull_back_all(values, [point], vectors)[0]


def pull_back_all(values: Tensor, points: list[Tensor], vectors: Tensor) -> list[Tensor]:
    """Multiply vectors with the Jacobians of values in several points, as `pull_back` does.

    Parameters
    ----------
    values : Tensor, shape S
    points : list of Tensor, shapes T_i
    vectors : Tensor, shape (K, *S)

    Returns
    -------
    list of Tensor, shapes (K, *T_i)
    """

    def plain(vector: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            values, points, vector, retain_graph=True, materialize_grads=True
        )

    if not values.requires_grad:
        return [point.new_zeros(len(vectors), *point.shape) for point in points]
    if len(vectors) == 1:
        return [row.unsqueeze(0) for row in plain(vectors[0])]
    found: tuple[Tensor | None, ...] | None
    try:
        found = torch.autograd.grad(
            values, points, vectors, retain_graph=True, is_grads_batched=True, allow_unused=True
        )
    except RuntimeError:
        found = None
    if found is None or not _is_combination(found, vectors, plain):
        return [torch.stack(rows) for rows in zip(*map(plain, vectors), strict=True)]
    return [
        point.new_zeros(len(vectors), *point.shape) if rows is None else rows
        for rows, point in zip(found, points, strict=True)
    ]


def _is_combination(
    found: tuple[Tensor | None, ...],
    vectors: Tensor,
    plain: Callable[[Tensor], tuple[Tensor, ...]],
) -> bool:
    """Whether a combination of the rows is the product with the same combination of vectors."""
    weights = probe(vectors.new_empty(len(vectors)))
    every_expected = plain(torch.tensordot(weights, vectors, dims=1))
    for rows, expected in zip(found, every_expected, strict=True):
        if rows is None:
            if expected.any():
                return False
            continue
        combined = torch.tensordot(weights, rows, dims=1)
        if not agrees(combined, expected, rows.norm() * weights.norm()):
            return False
    return True


def graph_bytes(roots: list[Tensor]) -> int:
    """Memory of the tensors that the graphs of the roots have saved, each counted once."""
    storages: dict[int, int] = {}
    nodes: list[Any] = [root.grad_fn for root in roots]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for tensor in _saved_tensors(node):
            try:
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
            except RuntimeError:  # sparse, or inside torch.func
                storages[-1 - len(storages)] = _bytes_without_storage(tensor)
        nodes += [function for function, _ in node.next_functions]
    return sum(storages.values())


def _bytes_without_storage(tensor: Tensor) -> int:
    """Memory of a tensor of which torch does not tell the storage."""
    if tensor.layout == torch.strided:
        return tensor.numel() * tensor.element_size()
    return tensor._nnz() * (tensor.element_size() + 8 * tensor.ndim)


def _saved_tensors(node: Any) -> Iterator[Tensor]:
    """Tensors that a node has saved: built-in nodes have attributes, custom ones a list."""
    kind: Any = type(node)  # mypy does not take a class for hashable
    values = [getattr(node, name) for name in _saved_names(kind)]
    for value in [*values, getattr(node, "saved_tensors", ())]:
        for entry in value if isinstance(value, list | tuple) else (value,):
            if isinstance(entry, Tensor):
                yield entry


@functools.cache
def _saved_names(kind: Any) -> list[str]:
    """Names of what nodes of a type save: looking them up takes longer than a small product."""
    return [name for name in dir(kind) if name.startswith("_saved_")]
