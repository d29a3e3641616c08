"""The three curvature matrices, by name.

H = d2L/dtheta2,   G = sum_n J_n^T S_n J_n,   R = sum_n sum_c e_nc d2f_c/dtheta2,   H = G + R
"""

from __future__ import annotations

from enum import StrEnum


class Matrix(StrEnum):
    """The Hessian H, the generalized Gauss-Newton matrix G, or the residual R.

    Members are strings: a member equals its name, and can be used in paths, tables and messages.
    ``Matrix(name)`` converts a name that a user has written.

    Examples
    --------
    >>> Matrix("ggn") is Matrix.GGN
    True
    >>> Matrix("fisher")
    Traceback (most recent call last):
    ...
    ValueError: matrix must be one of 'hessian', 'ggn', 'residual', got 'fisher'
    """

    HESSIAN = "hessian"
    GGN = "ggn"
    RESIDUAL = "residual"

    @classmethod
    def _missing_(cls, value: object) -> Matrix:
        names = ", ".join(repr(str(matrix)) for matrix in cls)
        raise ValueError(f"matrix must be one of {names}, got {value!r}")

    @property
    def has_decay(self) -> bool:
        """Whether weight decay adds to the matrix's diagonal.

        The penalty is quadratic in the parameters: its second derivative is part of H and G, and
        not of R.
        """
        return self is not Matrix.RESIDUAL
