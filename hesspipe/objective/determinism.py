"""Checks that a model is deterministic, finite, full-precision and per-sample independent.

A spectrum belongs to one function of theta. Modules that are random or couple samples are
recognized by type. Everything else is tested: the outputs are computed twice with different random
numbers, and if they differ, the operation that drew random numbers or the buffer that changed is
named.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hesspipe.objective.places import place_of_operation
from hesspipe.objective.pytrees import named_tensors
from hesspipe.objective.rare_draws import at_extremes, draws_numbers
from hesspipe.tolerances import rounding


@contextmanager
def preserved_random_state(device: torch.device) -> Iterator[None]:
    """Restore the global random states (torch, NumPy, Python) afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002 (the caller's state)


def require_finite_evaluation(
    outputs: Any, loss: Any, buffers: dict[str, Tensor], number: int
) -> None:
    """Raise an error unless outputs are finite and the loss is a finite scalar.

    Parameters
    ----------
    outputs : nested tensors
    loss : Any
        Return value of the loss function.
    buffers : dict of Tensor
        Buffers of the model; those with nan are named as a possible cause.
    number : int
        Number of the batch, for the message.

    Raises
    ------
    ValueError
    """
    for name, tensor in named_tensors(outputs, "outputs"):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = [key for key, value in buffers.items() if value.isnan().any()]
            hint = f"; the buffers {', '.join(bad)} contain nan" if bad else ""
            raise ValueError(f"model {name} must be finite, got nan or inf in batch {number}{hint}")
    if not isinstance(loss, Tensor) or loss.ndim != 0 or not loss.is_floating_point():
        what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        advice = (
            "use reduction='mean' or 'sum'"
            if isinstance(loss, Tensor)
            else "return the tensor alone, without .item() or float()"
        )
        raise ValueError(f"loss_fn must return a scalar tensor, got {what}; {advice}")
    if not torch.isfinite(loss):
        advice = "; a mean of no labels is nan, if all are ignored" * bool(loss.isnan())
        raise ValueError(f"the loss must be finite, got {float(loss)} in batch {number}{advice}")


def refuse_random_modules(model: nn.Module) -> None:
    """Raise an error for dropout and batch normalization in training mode, by module type."""
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
                f"model must treat samples independently, got {name} ({type(module).__name__}) "
                "without running statistics; build it with track_running_stats=True"
            )


def refuse_differences(
    first: Any, evaluate: Callable[[], Any], number: int, dtype: torch.dtype
) -> Any:
    """Raise an error if two evaluations differ by more than rounding; returns the second one.

    Parameters
    ----------
    first : (outputs, loss)
        First evaluation of one batch.
    evaluate : callable () -> (outputs, loss)
        Evaluates the same batch again.
    number : int
        Number of the batch, for the message.
    dtype : torch.dtype

    Raises
    ------
    ValueError
    """
    second, found = second_evaluation(first, evaluate, f"batch {number}", dtype)
    if found is not None:
        raise ValueError(
            f"model and loss_fn must be deterministic, got {found}; call model.eval(), or make it "
            "depend on `self.training`"
        )
    return second


def second_evaluation(
    first: Any, evaluate: Callable[[], Any], what: str, dtype: torch.dtype
) -> tuple[Any, str | None]:
    """Evaluate again; return that evaluation, and what differs with its cause, if anything.

    Parameters
    ----------
    first : (outputs, loss)
    evaluate : callable () -> (outputs, loss)
    what : str
        What is evaluated.
    dtype : torch.dtype
    """
    second, is_drawing = draws_numbers(evaluate)
    name = differing(first, second, dtype)
    if name is None:
        return second, _rare_difference(first, evaluate, what, dtype) if is_drawing else None
    tracer = _RandomnessTracer()
    with tracer:
        evaluate()
    cause = (
        f"{tracer.name} draws random numbers"
        if tracer.name
        else "something in it is random or changes from call to call"
    )
    return second, f"{name} that differs between two evaluations of {what}: {cause}"


def _rare_difference(
    first: Any, evaluate: Callable[[], Any], what: str, dtype: torch.dtype
) -> str | None:
    """Name what smallest or largest random numbers of Python or NumPy change, if anything."""
    for other in at_extremes(lambda: attempt(evaluate)):
        name = None if other is None else differing(first, other, dtype)
        if name is not None:
            return f"{name} that random numbers of Python or NumPy can change, if seldom, in {what}"
    return None


def differing(first: Any, second: Any, dtype: torch.dtype) -> str | None:
    """Name what differs between two evaluations (outputs, loss) by more than rounding, if any."""
    for (name, one), (_, other) in zip(_named(first), _named(second), strict=True):
        if not _is_same(one, other, dtype):
            return name
    return None


def refuse_changed_buffers(buffers: dict[str, Tensor], versions: dict[str, int]) -> None:
    """Raise an error if an evaluation of the model has changed its buffers."""
    for name, buffer in buffers.items():
        if buffer._version != versions[name]:
            raise ValueError(
                f"model must not change when it is evaluated, got a change in its buffer {name}; "
                "call model.eval() first, or make the change depend on `self.training`"
            )


def versions_of(values: Any) -> list[int]:
    """Count the changes in place of the tensors in nested containers."""
    return [tensor._version for _, tensor in named_tensors(values, "")]


def refuse_changed_targets(targets: Any, versions: list[int], number: int) -> None:
    """Raise an error if the loss has changed its targets in place.

    Parameters
    ----------
    targets : nested tensors
    versions : list of int
        Of `versions_of`, before.
    number : int
        Number of the batch, for the message.

    Raises
    ------
    ValueError
    """
    if versions_of(targets) != versions:
        raise ValueError(
            f"loss_fn must not change its targets, got other values in those of batch {number}; do "
            "not work in place on what the loss is given: write targets = targets - 1, not "
            "targets -= 1"
        )


def sums_of_bits(parameters: dict[str, Tensor]) -> dict[str, int]:
    """Add the bits of each parameter as integers, which takes no memory for a copy."""
    kinds = {torch.float64: torch.int64, torch.float32: torch.int32}
    with torch.no_grad():
        return {name: int(part.view(kinds[part.dtype]).sum()) for name, part in parameters.items()}


def refuse_changed_parameters(before: dict[str, int], after: dict[str, int]) -> None:
    """Raise an error if evaluations of the model or the loss have changed its parameters.

    Autograd does not see it where they work on `.data` or under `torch.no_grad()`.

    Parameters
    ----------
    before, after : dict of int
        Of `sums_of_bits`.

    Raises
    ------
    ValueError
    """
    for name, sum_before in before.items():
        if after[name] != sum_before:
            raise ValueError(
                f"model must not change when it is evaluated, got a change in its parameter "
                f"{name}, such as one that is clamped or normalized in place; compute what is used "
                "from the parameter instead, or change it before"
            )


def attempt(evaluate: Callable[[], Any]) -> Any:
    """Evaluate, at a point that is not the caller's: None where the model or loss is not defined.

    Whatever they raise there is no fault of the caller's.
    """
    try:
        return evaluate()
    except Exception:
        return None


def in_full_precision(
    evaluate: Callable[[], Any],
    dtype: torch.dtype,
    elsewhere: Callable[[], Any] | None = None,
) -> Any:
    """Evaluate, and raise an error if an operation converts to lower precision.

    What is the same at another point is a constant, such as the angles of positions: rounded, it
    is another constant.

    Parameters
    ----------
    evaluate : callable () -> Any
    dtype : torch.dtype
    elsewhere : callable () -> Any, optional
        Evaluates at a point where every parameter that varies is another one.

    Returns
    -------
    Any
        Result of the evaluation.

    Raises
    ------
    ValueError
    """
    with _PrecisionTracer(dtype) as tracer:
        evaluation = evaluate()
    if not tracer.found:
        return evaluation
    there = _PrecisionTracer(dtype)
    if elsewhere is not None:
        with there:
            elsewhere()
    for one, other in zip_longest(tracer.found, there.found):
        lowered = one or other
        if one != other or lowered.bits is None:
            raise ValueError(
                f"model and loss_fn must compute in {dtype}, got {lowered.what}; remove the "
                f"conversion{lowered.way_out}"
            )
    return evaluation


@dataclass(frozen=True)
class _Conversion:
    """A conversion to lower precision, and the bits of what is converted, where they are known."""

    what: str
    way_out: str
    bits: dict[str, int] | None


class _PrecisionTracer(TorchFunctionMode):
    """Finds the operations that convert from a dtype to a less precise one."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.found: list[_Conversion] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (
            isinstance(result, Tensor)
            and result.is_floating_point()
            and torch.finfo(result.dtype).eps > torch.finfo(self.dtype).eps
            and any(isinstance(arg, Tensor) and arg.dtype == self.dtype for arg in args)
        ):
            place = place_of_operation(sys._getframe())
            what = f"{_name_of(func)}, which returns {result.dtype}{place}"
            is_single = result.dtype == torch.float32
            way_out = ", or pass dtype=torch.float32" if is_single else ""
            converted = {
                str(place): arg.detach().contiguous()
                for place, arg in enumerate(args)
                if isinstance(arg, Tensor) and arg.dtype == self.dtype
            }
            bits = attempt(lambda: sums_of_bits(converted))
            self.found.append(_Conversion(what, way_out, bits))
        return result


class _RandomnessTracer(TorchFunctionMode):
    """Finds the first operation that draws random numbers from the global generator."""

    name: str | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = _random_states()
        result = func(*args, **(kwargs or {}))
        if self.name is None and any(
            not torch.equal(one, other) for one, other in zip(before, _random_states(), strict=True)
        ):
            self.name = _name_of(func)
        return result


def _named(evaluation: Any) -> list[tuple[str, Tensor]]:
    outputs, loss = evaluation
    return [("the loss", loss), *named_tensors(outputs, "outputs")]


def _random_states() -> list[Tensor]:
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return states


def _name_of(function: Any) -> str:
    return str(getattr(function, "__qualname__", None) or getattr(function, "__name__", function))


def _is_same(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Compare up to rounding, as a GPU may add in another order."""
    if one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return bool(torch.equal(one, other))
    if one.numel() == 0:
        return True
    size = one.detach().abs().nan_to_num(posinf=0.0).max()  # only a scale
    tolerance = rounding(float(size), dtype)
    return bool(torch.allclose(one, other, rtol=0.0, atol=tolerance, equal_nan=True))
