"""L(theta): a model, a loss and data as one function of one flat parameter vector."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """Part of the data; `share` times the loss of a batch adds up to L over the batches."""

    inputs: Tensor
    targets: Tensor
    share: float


class Objective:
    """The loss over all the data as a function of one flat parameter vector.

    L(theta) = loss_fn(f(theta; x), y) for a single batch. Over several batches it is what one
    batch of all the data would give: each batch counts by the denominator that the loss
    itself divides by (samples, their class weights, valid labels, elements), not by its
    place in a list.

    The model is never changed: its parameters are copied, and it is called through
    `torch.func.functional_call`. Frozen parameters (`requires_grad` false) stay part of
    theta and are held constant, so their rows in every matrix are zero.

    Parameters
    ----------
    model : nn.Module
        f; in evaluation mode if it has dropout or batch normalization.
    loss_fn : callable (outputs, targets) -> scalar Tensor
        l; a sum or mean over samples.
    data : (inputs, targets), or an iterable of such batches
        Tensors. Read once, here.
    denominator : callable (outputs, targets) -> float, optional
        What a mean loss divides by on a batch. Known for torch's own losses; needed for any
        other loss on more than one batch, where `reduction="sum"` is 1.
    dtype : torch.dtype
        Everything is computed in it. float64, because the counts of zero and negative
        eigenvalues mean nothing in float32.

    Attributes
    ----------
    theta : Tensor, shape (P,)
        The model's parameters, in the order of `model.named_parameters()`, each row-major.
    names, shapes : list
        Of the parameters, in the same order.
    num_parameters, num_data : int
        P and N.

    Raises
    ------
    ValueError
        If a module would make two evaluations differ, if there is no data or no parameter,
        or if the loss's denominator is unknown and needed.

    Examples
    --------
    >>> model = nn.Linear(3, 2)
    >>> data = torch.ones(4, 3), torch.tensor([0, 1, 0, 1])
    >>> Objective(model, nn.CrossEntropyLoss(), data).num_parameters
    8
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        data: tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]],
        *,
        denominator: Callable[[Tensor, Tensor], float] | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        _refuse_random_modules(model)
        parameters = dict(model.named_parameters())
        if not parameters:
            raise ValueError(f"model must have parameters, got {type(model).__name__} with none")
        self.model = model
        self.loss_fn = _in_dtype(loss_fn, dtype)
        self.dtype = dtype
        self.device = next(iter(parameters.values())).device
        self.names = list(parameters)
        self.shapes = [parameter.shape for parameter in parameters.values()]
        self.is_frozen = [not parameter.requires_grad for parameter in parameters.values()]
        self.theta = torch.cat(
            [parameter.detach().to(dtype).reshape(-1) for parameter in parameters.values()]
        )
        self._buffers = {
            name: self._cast(buffer.detach().clone()) for name, buffer in model.named_buffers()
        }
        pairs = _as_batches(data)
        self.num_data = sum(len(inputs) for inputs, _ in pairs)
        self.batches = self._weigh(pairs, denominator)

    @property
    def num_parameters(self) -> int:
        """P, the length of theta."""
        return len(self.theta)

    def outputs(self, theta: Tensor, inputs: Tensor) -> Tensor:
        """Evaluate f(theta; x).

        Parameters
        ----------
        theta : Tensor, shape (P,)
        inputs : Tensor, shape (n, ...)

        Returns
        -------
        Tensor, shape (n, C)
        """
        state: dict[str, Tensor] = dict(self._buffers)
        state.update(self.unflatten(theta))
        result: Tensor = torch.func.functional_call(self.model, state, (inputs,))
        return result

    def loss(self, theta: Tensor) -> Tensor:
        """Evaluate L(theta) over all the data: a scalar."""
        return torch.stack(
            [batch.share * self.batch_loss(theta, batch) for batch in self.batches]
        ).sum()

    def batch_loss(self, theta: Tensor, batch: Batch) -> Tensor:
        """Evaluate the loss of one batch, before it is multiplied by its share: a scalar."""
        return self.loss_fn(self.outputs(theta, batch.inputs), batch.targets)

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Split a flat vector into named parameters, frozen ones held constant."""
        sizes = [shape.numel() for shape in self.shapes]
        parts = zip(self.names, theta.split(sizes), self.shapes, self.is_frozen, strict=True)
        return {
            name: (part.detach() if is_frozen else part).view(shape)
            for name, part, shape, is_frozen in parts
        }

    def name_of(self, index: int) -> str:
        """Name the parameter that holds entry `index` of theta."""
        for name, shape in zip(self.names, self.shapes, strict=True):
            if index < shape.numel():
                return name
            index -= shape.numel()
        raise IndexError(f"theta has {self.num_parameters} entries")

    def _cast(self, tensor: Tensor) -> Tensor:
        tensor = tensor.to(self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    @torch.no_grad()
    def _weigh(
        self,
        pairs: list[tuple[Tensor, Tensor]],
        denominator: Callable[[Tensor, Tensor], float] | None,
    ) -> list[Batch]:
        """Give each batch its share of the denominator of all the data."""
        cast = [(self._cast(inputs), self._cast(targets)) for inputs, targets in pairs]
        if getattr(self.loss_fn, "reduction", None) == "sum":
            return [Batch(inputs, targets, 1.0) for inputs, targets in cast]
        if len(cast) == 1:
            return [Batch(*cast[0], 1.0)]
        denominator = denominator or _known_denominator(self.loss_fn)
        weights = [
            float(denominator(self.outputs(self.theta, inputs), targets))
            for inputs, targets in cast
        ]
        total = sum(weights)
        if total <= 0:
            raise ValueError(f"the loss's denominator must be positive, got {total} over all data")
        # A batch without a valid label is 0/0 to the loss, and no part of the whole.
        return [
            Batch(inputs, targets, weight / total)
            for (inputs, targets), weight in zip(cast, weights, strict=True)
            if weight > 0
        ]


def _as_batches(
    data: tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]],
) -> list[tuple[Tensor, Tensor]]:
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor):
        data = [data]
    batches = [(inputs, targets) for inputs, targets in data]
    if sum(len(inputs) for inputs, _ in batches) == 0:
        raise ValueError("data must hold at least one sample, got none")
    for number, (inputs, _) in enumerate(batches):
        if inputs.is_floating_point() and not torch.isfinite(inputs).all():
            raise ValueError(f"inputs must be finite, got nan or inf in batch {number}")
    return batches


def _refuse_random_modules(model: nn.Module) -> None:
    """A spectrum belongs to one function of theta, so that function must stay the same."""
    for name, module in model.named_modules():
        is_dropout = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        is_batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if module.training and (is_dropout or is_batch_norm):
            raise ValueError(
                f"model must be deterministic, got {name} ({type(module).__name__}) in training "
                "mode; call model.eval() first"
            )
        if is_batch_norm and module.running_mean is None:
            raise ValueError(
                f"model must treat each sample alone, got {name} ({type(module).__name__}) "
                "without running statistics; build it with track_running_stats=True"
            )


def _in_dtype(loss_fn: LossFunction, dtype: torch.dtype) -> LossFunction:
    """Copy a loss with tensors of its own (class weights), so that they match the outputs."""
    if isinstance(loss_fn, nn.Module) and any(True for _ in loss_fn.buffers()):
        return copy.deepcopy(loss_fn).to(dtype)
    return loss_fn


def _known_denominator(loss_fn: LossFunction) -> Callable[[Tensor, Tensor], float]:
    """What torch's own mean losses divide by."""
    name = getattr(loss_fn, "__name__", type(loss_fn).__name__)
    from_torch = getattr(loss_fn, "__module__", "").startswith("torch.nn")
    if from_torch and name in _PER_LABEL:
        return lambda outputs, targets: _label_weight(loss_fn, outputs, targets)
    if from_torch and name in _PER_ELEMENT:
        return lambda outputs, targets: float(outputs.numel())
    raise ValueError(
        f"the denominator of loss_fn ({name}) is not known, and batches must be weighed by it; "
        "pass denominator=..., or all the data as one batch"
    )


_PER_LABEL = {"CrossEntropyLoss", "NLLLoss", "cross_entropy", "nll_loss"}
_PER_ELEMENT = {
    "MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "BCELoss", "BCEWithLogitsLoss", "mse_loss",
    "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
}  # fmt: skip


def _label_weight(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> float:
    """Sum of the class weights of the valid labels; probabilities as targets count one each."""
    if targets.is_floating_point():
        return outputs.numel() / outputs.shape[1]
    valid = targets[targets != getattr(loss_fn, "ignore_index", -100)]
    weight: Tensor | None = getattr(loss_fn, "weight", None)
    return float(len(valid) if weight is None else weight[valid].sum())
