"""The Hessian, Gauss-Newton and residual matrices as operators: products without the matrix.

The graphs behind a product are built at the first one and kept, as many batches' as a memory
budget allows; the others' are built again for each block of vectors. Every product is exact
whatever the batching, because each batch counts by the loss's own denominator.

Over several processes (`torch.distributed`), each holds its part of the data; a product is the
sum over processes, one all-reduce. See `hesspipe.distributed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hesspipe.finiteness import require_finite_matrix
from hesspipe.objective import Objective
from hesspipe.products import BatchProduct

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse.linalg import LinearOperator

# Memory for the graphs that are kept, and for those of the vectors multiplied at once.
BLOCK_BYTES = 2 * 2**30


class CurvatureOperator:
    """A symmetric matrix of an objective, known by its products: what the three share.

    Parameters
    ----------
    objective : Objective
    block_bytes : int
        Memory that kept graphs may take, and again what one block of vectors may take beyond
        one. The graphs of a batch must fit in any case: pass smaller batches if they do not.
    progress : bool
        Show a progress bar over the vectors and batches of each product.

    Attributes
    ----------
    shape : tuple
        (P, P); rows and columns in the order of `objective.theta`.
    dtype, device
        Of the objective.
    num_data : int
        N.

    Raises
    ------
    ValueError
        From a product: if the vectors do not fit or the product is not finite.
    """

    matrix: str

    def __init__(
        self, objective: Objective, *, block_bytes: int = BLOCK_BYTES, progress: bool = False
    ) -> None:
        if block_bytes < 0:
            raise ValueError(f"block_bytes must be at least 0, got {block_bytes}")
        self.objective = objective
        self.shape = (objective.num_parameters, objective.num_parameters)
        self.dtype = objective.dtype
        self.device = objective.theta.device
        self.num_data = objective.num_data
        self._block_bytes = block_bytes
        self._progress = progress
        self._kept: dict[int, BatchProduct] = {}
        self._kept_bytes = 0

    @overload
    def __matmul__(self, vectors: Tensor) -> Tensor: ...

    @overload
    def __matmul__(self, vectors: NDArray[Any]) -> NDArray[Any]: ...

    def __matmul__(self, vectors: Tensor | NDArray[Any]) -> Tensor | NDArray[Any]:
        """Multiply vectors (P,) or (P, K), of torch or NumPy; the result is of the same kind."""
        if isinstance(vectors, np.ndarray):
            given = torch.from_numpy(np.ascontiguousarray(vectors))
            product: NDArray[Any] = (self @ given.to(self.device, self.dtype)).cpu().numpy()
            return product
        self._check(vectors)
        rows = vectors.detach().reshape(self.shape[0], -1).T.contiguous()
        total = self._multiply_rows(rows)
        if not torch.isfinite(total.sum()):
            if not torch.isfinite(rows).all():
                raise ValueError("vectors must be finite, got nan or inf")
            require_finite_matrix(self.objective, total, self.matrix)
        return total.T.reshape(vectors.shape)

    def to_scipy(self) -> LinearOperator[Any]:
        """Give the operator to SciPy's solvers, e.g. `scipy.sparse.linalg.eigsh`."""
        from scipy.sparse.linalg import LinearOperator

        def multiply(vectors: NDArray[Any]) -> NDArray[Any]:
            return self @ vectors

        return LinearOperator(
            self.shape,
            matvec=multiply,
            matmat=multiply,
            rmatvec=multiply,
            rmatmat=multiply,
            dtype=torch.empty(0, dtype=self.dtype).numpy().dtype,
        )

    def _check(self, vectors: Tensor) -> None:
        if vectors.ndim not in (1, 2) or len(vectors) != self.shape[0]:
            size = self.shape[0]
            raise ValueError(
                f"vectors must have shape ({size},) or ({size}, K), got {tuple(vectors.shape)}"
            )
        if vectors.dtype != self.dtype or vectors.device != self.device:
            raise ValueError(
                f"vectors must be {self.dtype} on {self.device}, as the objective, got "
                f"{vectors.dtype} on {vectors.device}"
            )

    def _multiply_rows(self, rows: Tensor) -> Tensor:
        """Products of the vectors (K, P), summed over batches, with the weight decay's part."""
        if self.objective.weight_decay:
            total = self.objective.decay_diagonal(self.matrix) * rows
        else:
            total = torch.zeros_like(rows)
        label = f"{self.matrix} x {len(rows)}"
        num_batches = len(self.objective.batches)
        bar = tqdm(total=num_batches * len(rows), desc=label, disable=not self._progress)
        with bar:
            for product in self._batch_products():
                step = product.num_at_once(self._block_bytes)
                for start in range(0, len(rows), step):
                    part = rows[start : start + step]
                    total[start : start + step] += product(part)
                    bar.update(len(part))
        return total

    def _batch_products(self) -> Iterator[BatchProduct]:
        """The batches' products; new ones are kept while memory lasts."""
        for number, batch in enumerate(self.objective.batches):
            if number in self._kept:
                yield self._kept[number]
                continue
            product = BatchProduct(self.objective, self.matrix, batch)
            if self._kept_bytes + product.graph_bytes <= self._block_bytes:
                self._kept[number] = product
                self._kept_bytes += product.graph_bytes
            yield product
            del product  # before the next one's graph is built


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

    matrix = "hessian"


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

    matrix = "ggn"


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

    matrix = "residual"


OPERATORS: dict[str, type[CurvatureOperator]] = {
    "hessian": HessianOperator,
    "ggn": GGNOperator,
    "residual": ResidualOperator,
}
