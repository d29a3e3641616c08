"""How samples depend on each other, and the samples of a batch on which it is tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hesspipe.objective.pytrees import Fields, map_tensors, named_tensors

# (outputs, targets, number of samples) -> what the loss divides by.
Divide = Callable[[Any, Any, int], float]


@dataclass(frozen=True)
class Term:
    """Outputs and targets of some samples."""

    outputs: Any
    targets: Any
    num_samples: int


@dataclass(frozen=True)
class Split:
    """Some samples, and parts that contain each of them once."""

    whole: Term
    parts: list[Term]


@dataclass
class Dependence:
    """How samples depend on each other.

    Attributes
    ----------
    coupling : str or None
        What couples them.
    reason_without_rows : str or None
        Why the outputs for one sample are not a row of the outputs for the batch.
    divide : callable or None
        What the loss divides by, as verified on every batch.
    is_sum : bool
        Whether that is the same number whatever the number of samples.
    """

    coupling: str | None = None
    reason_without_rows: str | None = None
    divide: Divide | None = None
    is_sum: bool = False

    def couple(self, sentence: str) -> None:
        """Set the coupling, unless one was found before."""
        self.coupling = self.coupling or sentence


def one_per_sample(outputs: Any, targets: Any, num_samples: int) -> float:
    """What a mean over samples divides by."""
    return float(num_samples)


def one(outputs: Any, targets: Any, num_samples: int) -> float:
    """What a sum divides by."""
    return 1.0


def take(values: Any, index: Tensor, num_samples: int) -> Any:
    """Select samples: rows of each tensor, or groups of rows where samples have several."""

    def chosen(tensor: Tensor) -> Tensor:
        if tensor.ndim == 0 or len(tensor) == 0 or len(tensor) % num_samples:
            return tensor
        groups = tensor.reshape(num_samples, -1, *tensor.shape[1:])[index.to(tensor.device)]
        return groups.reshape(-1, *tensor.shape[1:])

    return map_tensors(chosen, values)


def part_of(inputs: Tensor | Fields, index: Tensor) -> Tensor | Fields:
    """Select samples of inputs."""
    chosen = map_tensors(lambda tensor: tensor[index.to(tensor.device)], values_of(inputs))
    return Fields(chosen) if isinstance(inputs, Fields) else chosen


def values_of(inputs: Tensor | Fields) -> Any:
    """Return inputs as the containers of tensors that they are."""
    return inputs.values if isinstance(inputs, Fields) else inputs


def has_rows(term: Term) -> bool:
    """Whether each of the outputs has one row per sample."""
    tensors = [tensor for _, tensor in named_tensors(term.outputs, "")]
    return bool(tensors) and all(
        tensor.ndim > 0 and len(tensor) == term.num_samples and tensor.is_floating_point()
        for tensor in tensors
    )
