"""H, G and R as symmetric operators: products with vectors, without the matrix.

    M v = sum over batches of (M_batch v) + weight_decay v

with M_batch v from `hesspipe.curvature.products`, and weight decay for H and G only. Products do
not depend on the batches, because each batch is weighted by the denominator that the loss divides
by. The first product builds the autograd graphs. They are kept for as many batches as a memory
budget allows; for the others, and for streamed data, they are built again for each block of
vectors.

Over several processes (`torch.distributed`), each has its part of the data, and a product is a sum
over processes, one all-reduce. See `hesspipe.objective.distributed`.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from hesspipe.curvature.loss_derivatives import decay_diagonal
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.products import BatchProduct
from hesspipe.curvature.vectors import VectorProduct
from hesspipe.objective.batches import Batch
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.distributed import part_of_whole, telling, term_of
from hesspipe.objective.finiteness import require_finite_matrix
from hesspipe.objective.objective import Objective
from hesspipe.objective.streaming import StreamedBatches
from hesspipe.ranks.orders import Orders, Term, lead

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse.linalg import LinearOperator
    from torch.distributed import ProcessGroup

_Found = TypeVar("_Found")

# Memory for the graphs that are kept, and again for the vectors multiplied at once.
BLOCK_BYTES = 2 * 2**30


class CurvatureOperator(VectorProduct):
    """A symmetric matrix of an objective as an operator: base class of the three.

    Parameters
    ----------
    objective : Objective
    block_bytes : int
        Memory for kept graphs, and again for a block of several vectors. The graphs of one batch
        must fit in any case; use smaller batches if they do not.
    progress : bool
        Show a progress bar over the batches of each product.
    process_group : ProcessGroup, optional
        Of `torch.distributed`, for an objective that was built without one: it has the data of
        this process. Every process must compute the same products in the same order, as all
        functions of this package do. `torch.distributed.group.WORLD` has all processes.

    Attributes
    ----------
    shape : tuple
        (P, P); rows and columns in the order of `objective.theta`.
    dtype, device
        Those of the objective.
    num_data : int
        N, over all processes.

    Raises
    ------
    ValueError
        From a product, if the shape or dtype of the vectors is wrong or the product is not finite.
    """

    matrix: Matrix

    def __init__(
        self,
        objective: Objective,
        *,
        block_bytes: int = BLOCK_BYTES,
        progress: bool = False,
        process_group: ProcessGroup | None = None,
    ) -> None:
        _require_objective(objective)
        if block_bytes < 0:
            raise ValueError(f"block_bytes must be at least 0, got {block_bytes}")
        if process_group is not None:
            objective = _require_group(objective, process_group)
        self.objective = objective
        self.shape = (objective.num_parameters, objective.num_parameters)
        self.dtype = objective.dtype
        self.device = objective.theta.device
        self.num_data = objective.num_data
        self._block_bytes = block_bytes
        self._progress = progress
        self._graph_bytes: dict[int, int] = {}
        self._forget_graphs()

    def _forget_graphs(self) -> None:
        self._kept: dict[int, BatchProduct] = {}
        self._kept_bytes = 0
        self._checked: set[int] = set()

    @property
    def is_distributed(self) -> bool:
        """Whether other processes have other parts of the data."""
        return self.objective.ranks is not None

    def restricted_to(self, names: Collection[str]) -> CurvatureOperator:
        """Make the operator of the diagonal block of some parameters, by their names."""
        return type(self)(
            self.objective.restricted_to(names),
            block_bytes=self._block_bytes,
            progress=self._progress,
        )

    def at(self, objective: Objective) -> Self:
        """Make the operator of the same objective at another theta (`Objective.at`).

        The graphs of its batches have the sizes of those at this theta, which are not measured
        again: that takes as long as some products where these are small.
        """
        moved = copy.copy(self)
        moved.objective = objective
        moved._forget_graphs()
        return moved

    def to_scipy(self) -> LinearOperator[Any]:
        """Convert to a SciPy LinearOperator, e.g. for `scipy.sparse.linalg.eigsh`."""
        from scipy.sparse.linalg import LinearOperator

        def multiply(vectors: NDArray[Any]) -> NDArray[Any]:
            return self @ vectors

        return LinearOperator(
            self.shape,
            matvec=multiply,
            matmat=multiply,
            rmatvec=multiply,
            rmatmat=multiply,
            dtype=torch.empty(0, dtype=self.dtype, device="cpu").numpy().dtype,
        )

    def orders(self) -> Orders:
        """Return what rank 0 may ask the other processes for."""
        assert self.objective.ranks is not None
        return Orders(
            self.objective.ranks, [self._term, term_of(self.objective)], self.objective.theta
        )

    def found_together(self, name: str, compute: Callable[[], _Found]) -> _Found:
        """Compute something from products in rank 0, and send it to the other processes."""
        return lead(self.orders(), name, compute)

    def telling_errors(self) -> AbstractContextManager[None]:
        """Raise errors of a product in all processes that were called for it."""
        return telling(self.objective.ranks, f"a product with the {self.matrix}")

    def _multiply(self, vectors: Tensor) -> Tensor:
        is_one = vectors.ndim == 1
        rows = vectors.unsqueeze(0) if is_one else vectors.T.contiguous()
        total = self._multiply_rows(rows)
        if not math.isfinite(float(total.sum())):
            if not torch.isfinite(rows).all():
                raise ValueError("vectors must be finite, got nan or inf")
            require_finite_matrix(self.objective, total, self.matrix)
        return total[0] if is_one else total.T

    def _multiply_rows(self, rows: Tensor) -> Tensor:
        """Products with the vectors (K, P), with weight decay."""
        if self.objective.ranks is None:
            total = self._rows_of_part(rows)
        else:
            what = f"a product of the {self.matrix} with vectors"
            total = self.objective.ranks.sum_of(self._term, rows, what)
        if self.objective.weight_decay:
            total = total + decay_diagonal(self.objective, self.matrix) * rows
        return total

    @property
    def _term(self) -> Term:
        return Term(self._rows_of_part)

    @differentiating()
    def _rows_of_part(self, rows: Tensor) -> Tensor:
        """Products with the vectors (K, P), summed over the batches of this process."""
        batches: Iterable[Batch] = self.objective.batches
        ranks = self.objective.ranks
        if self._progress and (ranks is None or ranks.is_first):
            batches = tqdm(batches, desc=f"{self.matrix} x {len(rows)}", unit="batch")
        products = (self._batch_rows(place, batch, rows) for place, batch in enumerate(batches))
        first = next(products, None)
        if first is None:  # no data in this process
            return torch.zeros_like(rows)
        total = functools.reduce(torch.add, products, first)
        if ranks is not None and torch.isfinite(rows).all():  # names the rank
            require_finite_matrix(self.objective, total, self.matrix)
        return total

    @differentiating()
    def gradient_of_first_batch(self) -> Tensor | None:
        """Gradient of the first batch's term, (P,); None where other processes have batches.

        A part of the work of the first product, which builds the same graphs. Streamed data, of
        which none are kept, have the same start, so that they give the same numbers.
        """
        if self.is_distributed:
            return None
        return self._batch_product(0, next(iter(self.objective.batches))).gradient

    def _batch_rows(self, place: int, batch: Batch, rows: Tensor) -> Tensor:
        """Products on one batch, with as many vectors at once as memory allows."""
        product = self._batch_product(place, batch)
        step = 1 if len(rows) == 1 else product.num_at_once(self._block_bytes)
        found = [product(part) for part in rows.split(step)]
        if product.is_checked:
            self._checked.add(place)
        return found[0] if len(found) == 1 else torch.cat(found)

    def _batch_product(self, place: int, batch: Batch) -> BatchProduct:
        """Products on one batch; the graphs are kept if memory allows."""
        product = self._kept.get(place)
        if product is None:
            is_checked = place in self._checked
            product = BatchProduct(self.objective, self.matrix, batch, is_checked=is_checked)
            if isinstance(self.objective.batches, StreamedBatches):
                return product
            if place not in self._graph_bytes:
                self._graph_bytes[place] = product.graph_bytes
            if self._kept_bytes + self._graph_bytes[place] <= self._block_bytes:
                self._kept[place] = product
                self._kept_bytes += self._graph_bytes[place]
        return product


class HessianOperator(CurvatureOperator):
    """The Hessian H = d2L/dtheta2 as a symmetric operator; see `CurvatureOperator`.

    Examples
    --------
    >>> inputs, targets = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> objective = Objective(torch.nn.Linear(1, 1), torch.nn.MSELoss(), (inputs, targets))
    >>> HessianOperator(objective) @ torch.eye(2, dtype=torch.float64)
    tensor([[10.,  4.],
            [ 4.,  2.]], dtype=torch.float64)
    """

    matrix = Matrix.HESSIAN

    def loss(self) -> float:
        """Evaluate L(theta); of a single batch, as a part of the work of the first product."""
        objective = self.objective
        is_held = objective.ranks is None and not isinstance(objective.batches, StreamedBatches)
        if is_held and len(objective.batches) == 1 and not objective.weight_decay:
            with differentiating():
                term = self._batch_product(0, objective.batches[0]).term
            assert term is not None
            return float(term)
        with torch.no_grad():
            return float(objective.loss(objective.theta))


class GGNOperator(CurvatureOperator):
    """The generalized Gauss-Newton matrix G = sum_n J_n^T S_n J_n; see `CurvatureOperator`.

    Examples
    --------
    It is the Hessian of a network that is linear in its parameters:

    >>> inputs, targets = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> objective = Objective(torch.nn.Linear(1, 1), torch.nn.MSELoss(), (inputs, targets))
    >>> GGNOperator(objective) @ torch.ones(2, dtype=torch.float64)
    tensor([14.,  6.], dtype=torch.float64)
    """

    matrix = Matrix.GGN


class ResidualOperator(CurvatureOperator):
    """The residual R = sum_n sum_c e_nc d2f_c/dtheta2, never as H - G; see `CurvatureOperator`.

    Examples
    --------
    It is zero for a network that is linear in its parameters:

    >>> inputs, targets = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> objective = Objective(torch.nn.Linear(1, 1), torch.nn.MSELoss(), (inputs, targets))
    >>> ResidualOperator(objective) @ torch.ones(2, dtype=torch.float64)
    tensor([0., 0.], dtype=torch.float64)
    """

    matrix = Matrix.RESIDUAL


OPERATORS: dict[Matrix, type[CurvatureOperator]] = {
    Matrix.HESSIAN: HessianOperator,
    Matrix.GGN: GGNOperator,
    Matrix.RESIDUAL: ResidualOperator,
}


def objective_of(argument: Any, matrix: Matrix | str | None) -> tuple[Objective, Matrix]:
    """Find the objective and the matrix that an argument of a function means.

    Parameters
    ----------
    argument : Objective or CurvatureOperator
    matrix : {"hessian", "ggn", "residual"}, optional
        By default that of the operator, or the hessian.

    Returns
    -------
    objective : Objective
    matrix : Matrix

    Raises
    ------
    TypeError
        If the argument is something else.
    ValueError
        If the operator is that of another matrix, or has a part of the data only.
    """
    if isinstance(argument, CurvatureOperator):
        if matrix is not None and Matrix(matrix) is not argument.matrix:
            raise ValueError(
                f"matrix must be that of the operator, {str(argument.matrix)!r}, got "
                f"{str(matrix)!r}; pass its objective for another matrix"
            )
        _require_all_data(argument.objective)
        return argument.objective, argument.matrix
    _require_objective(argument)
    _require_all_data(argument)
    return argument, Matrix.HESSIAN if matrix is None else Matrix(matrix)


def _require_all_data(objective: Objective) -> None:
    if objective.ranks is not None:
        raise ValueError(
            "the objective must have all the data in this process for a matrix, got a process "
            "group; use hesspipe.eigenpairs or hesspipe.density"
        )


def _require_group(objective: Objective, process_group: ProcessGroup) -> Objective:
    """Make the objective a part of that of a group, unless it was built so."""
    if objective.ranks is None:
        return part_of_whole(objective, process_group)
    if objective.ranks.group != process_group:
        raise ValueError(
            "process_group must be that of the objective, or be left out, got another one"
        )
    return objective


def _require_objective(argument: Any) -> None:
    if not isinstance(argument, Objective):
        raise TypeError(
            f"objective must be an Objective, got {type(argument).__name__}; build one with "
            "hesspipe.Objective(model, loss_fn, data)"
        )
    argument.require_whole("operators and matrices")
