"""Errors as JSON, from which another process makes one of the same class; and differences."""

from __future__ import annotations

import builtins
from typing import Any

from hesspipe import errors
from hesspipe.errors import RankError

# Of a message, in characters.
_LONGEST_MESSAGE = 20_000


def report(error: BaseException | None) -> dict[str, Any] | None:
    """Describe an error by JSON."""
    if error is None:
        return None
    kinds = [kind.__name__ for kind in type(error).__mro__ if _is_known(kind)]
    message = str(error)[:_LONGEST_MESSAGE]
    return {"name": type(error).__name__, "classes": kinds, "message": message}


def _is_known(kind: type) -> bool:
    return kind.__module__ in ("builtins", errors.__name__)


def rank_error(message: str, names: list[str]) -> RankError:
    """Make a `RankError` that is also of the first known class of those named, if there is one."""
    found = [getattr(errors, name, None) or getattr(builtins, name, None) for name in names]
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Exception)]
    try:
        return _combined(kinds[0])(message) if kinds else RankError(message)
    except TypeError:  # of a class that cannot be combined, or needs more than a message
        return RankError(message)


def _combined(kind: type[Exception]) -> type[RankError]:
    if issubclass(RankError, kind) or issubclass(kind, RankError):
        return RankError
    return type("RankError", (RankError, kind), {"__doc__": RankError.__doc__})


def told(error: Any) -> Any:
    """Mark an error that all processes know."""
    error._is_told = True
    return error


def printed(value: Any) -> str:
    """Print a value; floating-point numbers with all their digits."""
    return value if isinstance(value, str) else repr(value)


def difference(name: str, values: list[str]) -> str | None:
    """Say which ranks have which value; None if all have the same."""
    ranks: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        ranks.setdefault(value, []).append(rank)
    if len(ranks) == 1:
        return None
    found = [
        f"{value} in rank{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
        for value, numbers in ranks.items()
    ]
    return f"{name} must be the same in every process, got {' and '.join(found)}"
