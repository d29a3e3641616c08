"""Rounding errors of an evaluation, measured where it is evaluated.

Monte Carlo arithmetic (Parker 1997; the CESTAC method of Vignes 1993 is alike): the result of every
floating-point operation, in the model, the loss and their derivatives, is multiplied by 1 + delta x
with a random x in [-1, 1]. With delta = 2^8 eps, the change of the final result is 2^8 times a
sample of its rounding error. It includes whatever happens at this point: cancellation, saturation,
clamped logarithms.

An operation that adds or subtracts inside (a matrix product, a norm, a derivative like
g - p <1, g>) rounds numbers that are larger than its result. For those the largest inputs are
perturbed too. Operations that only move, select or compare numbers are exact, and so are zeros and
sums and products of whole numbers, such as the position after the one that `floor` gives.

    delta           so large that true rounding errors do not matter, so small that the change is
                    linear in it
    kinks           a unit whose input is zero by cancellation (1 - 1) crosses a kink for every
                    delta, which no rounding of the true evaluation does. The change is then not
                    proportional to delta, and fewer operations are perturbed: not those of the
                    model's outputs, or only those of derivatives
    domains         log(1 - p) is nan for p (1 + delta) > 1. Perturbations towards zero, 1 - delta x
                    with x in [0, 1], stay in [0, 1] and [-1, 1]

References
----------
Parker, Monte Carlo Arithmetic, technical report CSD-970002, UCLA, 1997.
Vignes, A stochastic arithmetic for reliable scientific computation, Math. Comput. Simul., 1993.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode

from hesspipe.objective.operation_kinds import has_parts, is_selection, kind_of, name_of
from hesspipe.objective.whole_numbers import adds_whole_numbers, with_whole_noted
from hesspipe.seeding import derive_seed, generator
from hesspipe.tolerances import rounding

Scope = Literal["everything", "loss", "derivatives"]

# What is perturbed, from all operations to those that no kink can reach.
_SCOPES: tuple[Scope, ...] = ("everything", "loss", "derivatives")
# Pairs of perturbations, in eps. A smooth change is proportional to them. The smaller pair, with
# true rounding up to a fourth of the change, serves where the larger one leaves the domain.
_AMOUNTS = ((2.0**8, 2.0**4), (2.0**5, 2.0**2))
# Samples of the error, of which the largest counts.
_NUM_SAMPLES = 2
# A change per eps that grows this much when delta decreases by a factor of 8 or 16 is a kink's.
_KINK = 4.0
# A perturbation has 2.7 times the size of the error of one rounding, but a matrix product rounds
# up to 512 partial sums in turn, with 8 times the error of one rounding (sqrt(512) / 8 for terms
# of one sign, sqrt(512) / 3 for random signs). Two ways to compute a matrix differed by at most
# one sample in small networks, and by 4.5 for 1,000 data.
SAFETY = 8.0
# Random numbers are read from a ring of this many; a prime has no period in common with an array.
_NUM_NUMBERS = 131_071


def measured_rounding(
    evaluate: Callable[[], Tensor],
    value: Tensor,
    size: Callable[[Tensor], Tensor],
    what: str,
) -> Tensor:
    """Measure the rounding error of an evaluation.

    Parameters
    ----------
    evaluate : callable () -> Tensor
        Evaluates again, graphs included.
    value : Tensor
        Its result; finite.
    size : callable (Tensor) -> Tensor
        Norm of an error, or the norms of its parts.
    what : str
        What is evaluated, for messages.

    Returns
    -------
    Tensor
        In the shape that `size` returns: `SAFETY` times the largest of a few samples.

    Raises
    ------
    ValueError
        If the result is not finite, or not continuous, under the smallest perturbations.
    """
    errors: Tensor | None = None
    is_open: Tensor | None = None
    for scope in _SCOPES:
        large, small, jump = _samples(evaluate, value, size, scope, what)
        # A jump by a few roundings of the result, e.g. where a derivative takes the logarithm of
        # a rounding error, is rounding, however small the perturbation.
        is_jump = small > _KINK * large
        is_kinked = is_jump & (jump > rounding(size(value), value.dtype))
        found = torch.maximum(large, torch.where(is_jump & ~is_kinked, jump, small))
        errors = found if errors is None or is_open is None else torch.where(is_open, found, errors)
        is_open = is_kinked if is_open is None else is_open & is_kinked
        if not is_open.any():
            return SAFETY * errors
    raise ValueError(
        f"{what} must be continuous at the parameters, got a change that does not shrink with "
        "perturbations of a few roundings: a unit or the loss lies exactly on a kink; move the "
        "parameters by a small random step"
    )


class _Perturbation(TorchDispatchMode):
    """Multiplies results of floating-point operations by 1 + amount * eps * x.

    x is in [-1, 1], or in [-1, 0] if `is_inward`.
    """

    active: ClassVar[list[_Perturbation]] = []

    def __init__(self, amount: float, seed: int, scope: Scope, is_inward: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._amount, self._scope, self._is_inward = amount, scope, is_inward
        self._seed = seed
        self._places = random.Random(derive_seed(seed, "places of perturbations"))
        self._rings: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        self.is_in_model = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch marks this mode for its compiler, which takes a second to import.

        Compiled functions run as they were written here; see `hesspipe.objective.kernels`.
        """
        return False

    def __enter__(self) -> Self:
        self.active.append(self)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self.active.pop()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        args = _materialized(func, args)
        kind = kind_of(func)
        if kind == "exact" or is_selection(func, args, kwargs) or not self._is_reached():
            return with_whole_noted(func, args, kwargs, func(*args, **kwargs))
        if adds_whole_numbers(func, args, kwargs):
            return with_whole_noted(func, args, kwargs, func(*args, **kwargs))
        if kind == "fused":
            if has_parts(func):
                result = self._decomposed(func, args, kwargs)
                if result is not NotImplemented:
                    return result
            args = self._with_perturbed_inputs(func, args)
        result = func(*args, **kwargs)
        if func._schema.is_mutable:
            for tensor in _tensors(result):
                if _is_perturbable(tensor):
                    tensor.mul_(self._factors(tensor))
            return result
        if isinstance(result, Tensor):
            return self._perturbed(result)
        if isinstance(result, (tuple, list)):
            return type(result)(
                self._perturbed(part) if isinstance(part, Tensor) else part for part in result
            )
        return result

    def _decomposed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Evaluate the parts of an operation, if they accept its arguments."""
        try:
            with self:
                return decomposition_table[func](*args, **kwargs)
        except RuntimeError:  # e.g. gather with labels of uint8
            return NotImplemented

    def _is_reached(self) -> bool:
        if self._scope == "everything":
            return True
        is_derivative = torch._C._current_graph_task_id() != -1
        return not self.is_in_model and (self._scope == "loss" or is_derivative)

    def _with_perturbed_inputs(self, func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Perturb the largest inputs: what they add up to may be much smaller."""
        sizes = [arg.numel() for arg in args if isinstance(arg, Tensor) and _is_perturbable(arg)]
        first = 1 if func._schema.is_mutable else 0
        return tuple(
            self._perturbed(arg)
            if isinstance(arg, Tensor) and place >= first and arg.numel() == max(sizes, default=0)
            else arg
            for place, arg in enumerate(args)
        )

    def _perturbed(self, tensor: Tensor) -> Tensor:
        if not _is_perturbable(tensor):
            return tensor
        # Inside a mode, products take no notice that a tensor is kept as its conjugate or negative.
        return tensor.resolve_conj().resolve_neg() * self._factors(tensor)

    def _factors(self, tensor: Tensor) -> Tensor:
        """1 + amount * eps * x, in the tensor's shape."""
        start, count = self._places.randrange(_NUM_NUMBERS), tensor.numel()
        ring = self._ring(tensor)[start : start + min(count, _NUM_NUMBERS)]
        if count > _NUM_NUMBERS:
            ring = ring.repeat(-(-count // _NUM_NUMBERS))[:count]
        return ring.view(tensor.shape)

    def _ring(self, tensor: Tensor) -> Tensor:
        """Random factors, twice in turn, so that any place can be the first."""
        dtype = tensor.real.dtype if tensor.is_complex() else tensor.dtype
        key = (dtype, tensor.device)
        if key not in self._rings:
            numbers = torch.rand(
                _NUM_NUMBERS,
                generator=generator(self._seed, "perturbations"),
                dtype=torch.float64,
                device="cpu",
            )
            numbers = -numbers if self._is_inward else 2 * numbers - 1
            eps = min(torch.finfo(dtype).eps, 2.0**-16)
            ring = (1 + self._amount * eps * numbers).to(tensor.device, dtype)
            self._rings[key] = torch.cat([ring, ring])
        return self._rings[key]


def is_perturbing() -> bool:
    """Whether an evaluation is perturbed: it must not be compared with stored numbers."""
    return bool(_Perturbation.active)


@contextmanager
def model_evaluation() -> Iterator[None]:
    """Mark what is evaluated inside as the model's outputs, which may be kept exact."""
    active = _Perturbation.active[-1] if _Perturbation.active else None
    if active is None or active.is_in_model:
        yield
        return
    active.is_in_model = True
    try:
        yield
    finally:
        active.is_in_model = False


def _samples(
    evaluate: Callable[[], Tensor],
    value: Tensor,
    size: Callable[[Tensor], Tensor],
    scope: Scope,
    what: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Changes per eps for a large and a small perturbation, and the change for the small one."""
    failure: Exception | None = None
    for amounts in _AMOUNTS:
        for is_inward in (False, True):
            try:
                large, small = (
                    _largest_change(evaluate, value, size, scope, amount, is_inward)
                    for amount in amounts
                )
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, ArithmeticError, AssertionError) as error:
                failure = error  # e.g. a distribution that checks its parameters
                continue
            if torch.isfinite(large).all() and torch.isfinite(small).all():
                return large, small, small * amounts[1]
    raise ValueError(
        f"{what} must stay finite where numbers change by a few roundings, got "
        f"{failure or 'nan or inf'}; the model or the loss is at the border of its domain, e.g. "
        "log(1 - p) at p = 1: compute it from log-probabilities"
    ) from failure


def _largest_change(
    evaluate: Callable[[], Tensor],
    value: Tensor,
    size: Callable[[Tensor], Tensor],
    scope: Scope,
    amount: float,
    is_inward: bool,
) -> Tensor:
    changes = []
    for seed in range(_NUM_SAMPLES):
        with _Perturbation(amount, seed, scope, is_inward):
            perturbed = evaluate()
        changes.append(size(perturbed - value) / amount)
    return torch.stack(changes).amax(0)


def _materialized(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give ordinary zeros for zeros without memory, and a tensor for a number in its place.

    Forward mode returns such zeros where nothing depends on the input. Inside a mode, torch 2.13
    multiplies them with a number by calling itself without end, or expands the number itself.
    """
    if args and isinstance(args[0], float) and name_of(func) == "expand":
        return (torch.tensor(args[0], dtype=torch.float64, device="cpu"), *args[1:])
    return tuple(
        arg.clone() if isinstance(arg, Tensor) and arg._is_zerotensor() else arg for arg in args
    )


def _is_perturbable(tensor: Tensor) -> bool:
    is_number = tensor.is_floating_point() or tensor.is_complex()
    has_numbers = tensor.layout == torch.strided and not tensor._is_zerotensor()
    return is_number and has_numbers and tensor.numel() > 0


def _tensors(result: Any) -> list[Tensor]:
    parts = result if isinstance(result, (tuple, list)) else (result,)
    return [part for part in parts if isinstance(part, Tensor)]
