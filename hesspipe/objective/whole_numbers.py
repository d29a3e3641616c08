"""Whole numbers in floating point, such as positions in a grid: sums of them are not rounded.

Interpolation takes the positions on both sides of a point, `floor(x)` and `floor(x) + 1`, to look
up values. A perturbation of the second would look up another value, as no rounding does.

Only tensors that are whole by construction count, as results of `floor` and what is computed from
these. A probability that is rounded to 1 is not.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hesspipe.objective.operation_kinds import kind_of, name_of

_SOURCES = frozenset({"floor", "ceil", "trunc", "round"})
_SUMS = frozenset({"add", "sub", "rsub", "mul"})
# Exact operations whose results are other numbers than those they are given.
_OTHERS = ("rand", "normal", "uniform", "dropout", "bernoulli", "empty", "resize")
_MARK = "_hesspipe_is_whole"


def adds_whole_numbers(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation adds or multiplies whole numbers."""
    return name_of(func) in _SUMS and _are_whole((*args, *kwargs.values()))


def with_whole_noted(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """Return the result of an operation, marked if it is of whole numbers."""
    name = name_of(func)
    is_source = name in _SOURCES and len(args) == 1 and not kwargs
    is_kept = name in _SUMS or (
        kind_of(func) == "exact" and not any(part in name for part in _OTHERS)
    )
    if is_source or (is_kept and _are_whole((*args, *kwargs.values()))):
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, Tensor) and part.is_floating_point():
                setattr(part, _MARK, True)
    return result


def _are_whole(values: Any) -> bool:
    """Whether some numbers are marked, and none is anything but whole."""
    tensors: list[Tensor] = []
    for value in values:
        parts = value if isinstance(value, (tuple, list)) else (value,)
        if any(isinstance(part, float) and not part.is_integer() for part in parts):
            return False
        tensors += [part for part in parts if isinstance(part, Tensor)]
    numbers = [part for part in tensors if part.is_floating_point() or part.is_complex()]
    return bool(numbers) and all(getattr(part, _MARK, False) for part in numbers)
