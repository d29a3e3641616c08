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
from torch.overrides import TorchFunctionMode

from hesspipe.objective.batches import Batch
from hesspipe.objective.dependence import part_of, take
from hesspipe.objective.determinism import attempt
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.reductions import LossFunction
from hesspipe.objective.whole_batches import WholeBatch

# Operations of one evaluation of the samples that expensive checks look at, some 50 evaluations
# each: about a second on one core. All samples of small networks take less.
_OPERATIONS = 1e8
# However large the network is.
_LEAST_CHECKED = 4
_NUM_MEASURED = 2
# Of a batch, per parameter, whatever the number of samples.
_OPERATIONS_OF_VECTORS = 8
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
    """

    operations: float
    num_parameters: int

    @property
    def num_checked(self) -> int:
        """Number of samples that expensive checks look at."""
        return max(_LEAST_CHECKED, math.floor(_OPERATIONS / max(1.0, self.operations)))

    @property
    def num_batches(self) -> int:
        """Most batches that they are drawn from: each of them takes several vectors of length P."""
        return max(1, math.floor(_OPERATIONS / _OPERATIONS_OF_VECTORS / self.num_parameters))


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
    is_whole = isinstance(batch.inputs, WholeBatch)
    for size in (batch.num_samples,) if is_whole else (_NUM_MEASURED, batch.num_samples):
        if size > batch.num_samples:
            continue
        found: float | None = attempt(lambda: _measured(apart, loss_fn, batch, size))  # noqa: B023
        if found is not None:
            return Work(found / size, len(model.theta))
    return Work(0.0, len(model.theta))


def _measured(model: FlatModel, loss_fn: LossFunction, batch: Batch, size: int) -> float:
    inputs, targets = batch.inputs, batch.targets
    if size < batch.num_samples:
        index = torch.arange(size)
        inputs, targets = part_of(inputs, index), take(targets, index, batch.num_samples)
    with _Operations() as counted:
        loss_fn(model(model.theta, inputs), targets)
    return float(max(counted.total, size * len(model.theta)))


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
