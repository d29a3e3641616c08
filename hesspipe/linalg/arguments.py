"""Numbers that callers pass, checked before anything is computed with them."""

from __future__ import annotations

import math
import operator
from typing import Any


def require_integer(name: str, value: Any, least: int | None = None) -> int:
    """Return an argument as an integer.

    Parameters
    ----------
    name : str
        For the message.
    value : Any
        An int, or a number of NumPy or torch that is one.
    least : int, optional
        The smallest allowed.

    Returns
    -------
    int

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is too small.

    Examples
    --------
    >>> require_integer("num_steps", 3)
    3
    >>> require_integer("num_steps", 1.5)
    Traceback (most recent call last):
    TypeError: num_steps must be an integer, got 1.5
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def require_number(name: str, value: Any) -> float:
    """Return an argument as a real number, which may be infinite.

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is nan.

    Examples
    --------
    >>> require_number("low", "a")
    Traceback (most recent call last):
    TypeError: low must be a real number, got 'a'
    """
    if isinstance(value, (str, bytes, bool)) or value is None:
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a real number, got {value!r}") from None
    if math.isnan(number):
        raise ValueError(f"{name} must be a number, got nan")
    return number
