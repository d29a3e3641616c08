"""A row of the zoo: a model of a real package, and products with its matrices from plain torch."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision_operators import declare_operators

from hesspipe import GGNOperator, HessianOperator, Objective, ShardedObjective
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.sharded_products import ShardedProducts

_OPERATORS = {Matrix.HESSIAN: HessianOperator, Matrix.GGN: GGNOperator}


def package(name: str) -> Any:
    """Import a package without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.split(".")[0] in ("torchvision", "timm", "transformers", "peft"):
            declare_operators()
        return importlib.import_module(name)


@dataclass(frozen=True)
class Case:
    """A model, and the same loss for hesspipe and for plain torch.

    Attributes
    ----------
    model : nn.Module
    loss : callable (model) -> scalar Tensor
        Over all the data, for a model of `dtype`.
    objective : callable () -> Objective
    outputs : callable (model) -> Tensor, optional
        With `loss_of_outputs`, defines G.
    dtype : torch.dtype
    """

    model: nn.Module
    loss: Callable[[nn.Module], Tensor]
    objective: Callable[[], Objective]
    outputs: Callable[[nn.Module], Tensor] | None = None
    loss_of_outputs: Callable[[Tensor], Tensor] | None = None
    dtype: torch.dtype = torch.float64


@dataclass(frozen=True)
class Row:
    """A kind of model.

    Attributes
    ----------
    name : str
    make : callable () -> Case
    packages : sequence of str
        Which it needs beyond torch.
    num_lines : int
        Of the user, beyond the objective.
    refusal : str or None
        Part of the message, if the model is refused.
    """

    name: str
    make: Callable[[], Case]
    packages: Sequence[str] = ()
    num_lines: int = 0
    refusal: str | None = None


def classifier(
    model: nn.Module,
    inputs: Any,
    targets: Tensor,
    *,
    loss_fn: Callable[[Any, Tensor], Tensor] = nn.functional.cross_entropy,
    read: Callable[[Any], Tensor] = lambda outputs: outputs,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> Case:
    """A network whose loss is a function of its outputs and targets; `read` finds the tensor."""

    def outputs(network: nn.Module) -> Tensor:
        given = converted(inputs, dtype)
        if isinstance(given, dict):
            return read(network(**given))
        return read(network(*given) if isinstance(given, tuple) else network(given))

    def of_outputs(tensor: Tensor) -> Tensor:
        return loss_fn(tensor, converted(targets, dtype))

    def of_model(found: Any, target: Tensor) -> Tensor:
        return loss_fn(read(found), target)

    return Case(
        model,
        lambda network: of_outputs(outputs(network)),
        lambda: Objective(model, of_model, (inputs, targets), dtype=dtype, **options),
        outputs,
        of_outputs,
        dtype,
    )


def own_loss(
    model: nn.Module,
    batch: Any,
    loss: Callable[[nn.Module, Any], Tensor] = lambda model, batch: model(**batch).loss,
    *,
    dtype: torch.dtype = torch.float64,
) -> Case:
    """A loss as a function of a model and a batch, in one batch."""
    return Case(
        model,
        lambda network: loss(network, converted(batch, dtype)),
        lambda: Objective.from_batches(model, loss, [batch], dtype=dtype),
        dtype=dtype,
    )


def converted(value: Any, dtype: torch.dtype) -> Any:
    """Convert the tensors of floating point in a batch."""
    if isinstance(value, dict):
        return {key: converted(entry, dtype) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(converted(entry, dtype) for entry in value)
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if hasattr(value, "edge_index"):
        return value.clone().apply(lambda t: t.to(dtype) if t.is_floating_point() else t)
    if isinstance(value, list):
        return [converted(entry, dtype) for entry in value]
    return value


def product(objective: Objective, matrix: Matrix, vector: Tensor) -> Tensor:
    """Multiply by a matrix of an objective, (P,), which may be sharded over one process."""
    if isinstance(objective, ShardedObjective):
        return ShardedProducts(objective, matrix).multiply(vector)
    return _OPERATORS[matrix](objective) @ vector


def hessian_product(case: Case, vector: Tensor) -> Tensor:
    """H v, (P,), by double backward of the original loss on the original model."""
    model, parameters = _prepared(case)
    parts = _split(vector, parameters)
    with sdpa_kernel(SDPBackend.MATH):  # the only attention with second derivatives
        slopes = torch.autograd.grad(
            case.loss(model), parameters, create_graph=True, allow_unused=True
        )
        total = _inner(slopes, parts)
        return _joined(torch.autograd.grad(total, parameters, allow_unused=True), parameters)


def ggn_product(case: Case, vector: Tensor) -> Tensor:
    """G v = J^T (l'' (J v)), (P,), with J v by a double backward."""
    assert case.outputs is not None
    assert case.loss_of_outputs is not None
    model, parameters = _prepared(case)
    with sdpa_kernel(SDPBackend.MATH):
        outputs = case.outputs(model)
    # Not zero, where the derivative of logcumsumexp takes logarithms.
    dummy = torch.linspace(1, 2, outputs.numel()).view_as(outputs).to(outputs).requires_grad_()
    transposed = torch.autograd.grad(
        outputs, parameters, dummy, create_graph=True, allow_unused=True
    )
    inner = _inner(transposed, _split(vector, parameters))
    (tangent,) = torch.autograd.grad(inner, dummy, retain_graph=True)
    point = outputs.detach().requires_grad_()
    (slope,) = torch.autograd.grad(case.loss_of_outputs(point), point, create_graph=True)
    (curved,) = torch.autograd.grad(slope, point, tangent)
    return _joined(torch.autograd.grad(outputs, parameters, curved, allow_unused=True), parameters)


def _inner(slopes: Sequence[Tensor | None], vectors: Sequence[Tensor]) -> Tensor:
    pairs = zip(slopes, vectors, strict=True)
    return torch.stack([(s * v).sum() for s, v in pairs if s is not None]).sum()


def _prepared(case: Case) -> tuple[nn.Module, list[Tensor]]:
    model = case.model.to(case.dtype)
    return model, [p for p in model.parameters() if p.requires_grad]


def _split(vector: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    parts = vector.split([p.numel() for p in parameters])
    return [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]


def _joined(slopes: Sequence[Tensor | None], parameters: list[Tensor]) -> Tensor:
    pairs = zip(slopes, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if s is None else s).flatten() for s, p in pairs])


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float32, as data usually are."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(high: int, *shape: int, seed: int = 1) -> Tensor:
    """Uniform integers below `high`."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))
