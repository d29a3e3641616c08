"""The work and the memory that a model and a loss take for a sample, measured before the checks.

A few samples are evaluated once, by a copy of the model: the operations are counted, and the
tensors that the graph keeps for derivatives. The first decide how many samples the expensive
checks look at, the second whether a batch fits into memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from hesspipe.errors import TooLargeError
from hesspipe.hardware import available_bytes, require
from hesspipe.objective.batches import Batch
from hesspipe.objective.dependence import part_of, take
from hesspipe.objective.determinism import attempt
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.pieces import SAMPLES_AT_ONCE
from hesspipe.objective.reductions import LossFunction
from hesspipe.objective.whole_batches import WholeBatch

# Operations of one evaluation of the samples that expensive checks look at, some 50 evaluations
# each: at most about a second on one core. All samples of small networks take less than the tenth,
# and of others these checks take a share of the time of one product.
_OPERATIONS = 1e8
_OPERATIONS_FOR_ALL = 1e7
_SHARE = 1 / 16
# However large the network is.
_LEAST_CHECKED = 4
_NUM_MEASURED = 2
# Of length P, for a product: theta, its gradient, the vector, the product and its parts.
_VECTORS = 5
# Of the graph of samples of several batches, which are evaluated at once where that is no more.
_BYTES_AT_ONCE = 2**22
# Of a batch, per parameter, whatever the number of samples.
_OPERATIONS_OF_VECTORS = 32
_WITH_WEIGHT = ("linear", "conv")
_PRODUCTS = ("matmul", "mm", "scaled_dot_product_attention")


@dataclass(frozen=True)
class Work:
    """What one evaluation takes.

    Attributes
    ----------
    operations : float
        Of a sample.
    num_parameters : int
        P.
    graph_bytes : float
        Of the graph of the loss of a sample, for second derivatives.
    """

    operations: float
    num_parameters: int
    graph_bytes: float = 0.0

    def num_checked(self, num_samples: int) -> int:
        """Number of samples, of all the data, that expensive checks look at."""
        allowed = self._allowed(num_samples) / max(1.0, self.operations)
        return max(_LEAST_CHECKED, math.floor(allowed))

    def num_batches(self, num_samples: int) -> int:
        """Most batches that they are drawn from: each of them takes several vectors of length P."""
        allowed = self._allowed(num_samples) / self.num_parameters
        return max(1, math.floor(allowed / _OPERATIONS_OF_VECTORS))

    def num_at_once(self, num_samples: int) -> int:
        """Number of samples, of batches of at most `num_samples`, that are evaluated at once."""
        if not self.graph_bytes:  # it is not known
            return num_samples
        return max(num_samples, min(SAMPLES_AT_ONCE, math.floor(_BYTES_AT_ONCE / self.graph_bytes)))

    def _allowed(self, num_samples: int) -> float:
        """Operations of one evaluation of the samples that are looked at."""
        share = _SHARE * num_samples * self.operations
        return min(_OPERATIONS, max(_OPERATIONS_FOR_ALL, share))


def require_graph(work: Work, num_samples: int, theta: Tensor) -> None:
    """Raise an error if the graph of a batch does not fit into memory.

    Parameters
    ----------
    work : Work
    num_samples : int
        Of the largest batch.
    theta : Tensor, shape (P,)
        On the device that is asked.

    Raises
    ------
    TooLargeError
    """
    num_bytes = (
        int(num_samples * work.graph_bytes) + _VECTORS * theta.numel() * theta.element_size()
    )
    what = f"a product with the hessian on a batch of {num_samples:,} samples"
    try:
        require(num_bytes, what, "use smaller batches", device=theta.device)
    except TooLargeError as error:
        raise TooLargeError(f"{error}: about {_fitting(work, theta):,} samples would fit") from None


def _fitting(work: Work, theta: Tensor) -> int:
    """Number of samples for which there is memory, at least 1."""
    free = available_bytes(theta.device) - _VECTORS * theta.numel() * theta.element_size()
    return max(1, int(free / max(1.0, work.graph_bytes)))


def measured_work(model: FlatModel, loss_fn: LossFunction, batch: Batch) -> Work:
    """Evaluate a few samples of a batch, or all of it where it cannot be divided.

    Parameters
    ----------
    model : FlatModel
        Not evaluated itself.
    loss_fn : callable (outputs, targets) -> scalar Tensor
    batch : Batch

    Returns
    -------
    Work
        Of no operations where the model or the loss raises an error, which later steps explain.
    """
    apart = model.fresh_copy()
    size, num_parameters = batch.num_samples, len(model.theta)
    if size > _NUM_MEASURED and not isinstance(batch.inputs, WholeBatch):
        one, both = (_attempted(apart, loss_fn, batch, few) for few in (1, _NUM_MEASURED))
        if one is not None and both is not None:  # what does not grow belongs to no sample
            growth = max(0, both[1] - one[1]) / (_NUM_MEASURED - 1)
            return Work(both[0] / _NUM_MEASURED, num_parameters, growth)
    found = _attempted(apart, loss_fn, batch, size) or (0.0, 0)
    return Work(found[0] / max(1, size), num_parameters, found[1] / max(1, size))


def _attempted(
    model: FlatModel, loss_fn: LossFunction, batch: Batch, size: int
) -> tuple[float, int] | None:
    found: tuple[float, int] | None = attempt(lambda: _measured(model, loss_fn, batch, size))
    return found


def _measured(
    model: FlatModel, loss_fn: LossFunction, batch: Batch, size: int
) -> tuple[float, int]:
    """Count the operations of some samples, and the bytes of what their graph keeps."""
    inputs, targets = batch.inputs, batch.targets
    if size < batch.num_samples:
        index = torch.arange(size, device="cpu")
        inputs, targets = part_of(inputs, index), take(targets, index, batch.num_samples)
    point = model.theta.detach().requires_grad_()
    own = {point.untyped_storage().data_ptr()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with _Operations() as counted, saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss_fn(model(point, inputs), targets)
    num_bytes = sum(kept.values())
    del value
    return float(max(counted.total, size * len(model.theta))), num_bytes


class _Operations(TorchFunctionMode):
    """Counts multiplications of matrix products and convolutions, and what others return.

    What is missed (a recurrent layer) makes the checks look at more samples, not at fewer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            factors = [arg for arg in args if isinstance(arg, Tensor) and arg.ndim > 1]
            name = getattr(func, "__name__", "")
            terms = 1.0
            if len(factors) > 1 and name.startswith(_WITH_WEIGHT):
                terms = factors[1].numel() / len(factors[1])
            elif len(factors) > 1 and name.endswith(_PRODUCTS):
                terms = factors[0].shape[-1]
            self.total += result.numel() * terms
        return result
