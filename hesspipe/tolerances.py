"""How far results may differ in rounding that are equal in exact arithmetic.

A sum of n numbers has a rounding error of about sqrt(n) eps times their size, and of at most
n eps (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 4.2). Sums over samples
and parameters have 1e3 to 1e7 terms, and the errors that were seen are a few eps up to some tens.
A wrong formula, on the other hand, differs in the first digits. 1e3 eps therefore separates the
two with a wide margin on each side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Size = TypeVar("Size", float, "Tensor")

# In units of eps; see the module's docstring.
NUM_ROUNDINGS = 1e3


def rounding(scale: Size, dtype: torch.dtype) -> Size:
    """Bound the rounding errors of a computation.

    Parameters
    ----------
    scale : float or scalar Tensor
        Size of the numbers that were added or multiplied, e.g. a norm.
    dtype : torch.dtype
        The floating-point type of the computation.

    Returns
    -------
    float or scalar Tensor
        1e3 * eps * scale.
    """
    import torch

    return NUM_ROUNDINGS * torch.finfo(dtype).eps * scale


def agrees(found: Tensor, expected: Tensor, scale: Size) -> bool:
    """Check that two tensors are equal up to rounding.

    Parameters
    ----------
    found, expected : Tensor
        Of one shape and dtype.
    scale : float or scalar Tensor
        Size of the numbers that were added or multiplied, e.g. `expected.norm()`.

    Returns
    -------
    bool
        Whether the Euclidean norm of the difference is at most 1e3 * eps * scale. False if
        anything is nan.

    Examples
    --------
    >>> import torch
    >>> third = torch.tensor(1 / 3, dtype=torch.float64)
    >>> agrees(third + third + third, torch.ones_like(third), 1.0)
    True
    >>> agrees(third, third + 1e-9, 1.0)
    False
    """
    return bool((found - expected).norm() <= rounding(scale, found.dtype))
