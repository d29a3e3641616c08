"""Inertia of symmetric matrices by L D L^T, without eigenvalues.

    P^T (M - s I) P = L D L^T

with a permutation P, L unit lower triangular and D of 1 x 1 and 2 x 2 blocks. By Sylvester's law
M - s I and D have equally many negative, zero and positive eigenvalues, so the signs of D count
the eigenvalues of M below and above s. This shares no step with an eigensolver and costs about
a seventh of one, which makes it an independent check of counts of signs.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dsytrf, dsytrf_lwork
from torch import Tensor

from hesspipe.errors import InconsistentMatrixError


def count_signs(values: Tensor, shift: float) -> tuple[int, int]:
    """Count the eigenvalues below and above a shift.

    Rounding moves an eigenvalue by about eps * P * max|eigenvalue|, so one that is closer to the
    shift may count on either side.

    Parameters
    ----------
    values : Tensor, shape (P, P)
        float64, symmetric, on the CPU; the lower triangle is read.
    shift : float

    Returns
    -------
    num_below, num_above : int
        The rest, P - num_below - num_above, is equal to the shift.

    References
    ----------
    Bunch, Kaufman (1977): Some stable methods for calculating inertia and solving symmetric linear
    systems.

    Examples
    --------
    >>> import torch
    >>> values = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    >>> count_signs(values, 0.5)  # the eigenvalues are -1 and 1
    (1, 1)
    """
    size = len(values)
    if size == 0:
        return 0, 0
    # LAPACK is column-major: our lower triangle is the upper one of the transpose.
    shifted = np.array(values.numpy().T, order="F")
    shifted[np.diag_indices(size)] -= shift
    work_size, _ = dsytrf_lwork(size, lower=0)  # the default of SciPy factorizes without blocks
    blocks, pivots, info = dsytrf(shifted, lower=0, lwork=int(work_size), overwrite_a=1)
    if info < 0:
        raise InconsistentMatrixError(f"dsytrf refused its argument {-info}")
    # Pivoting makes the determinant of every 2 x 2 block negative: one eigenvalue of each sign.
    num_pairs = int((pivots < 0).sum()) // 2
    singles = blocks.diagonal()[pivots > 0]
    return int((singles < 0).sum()) + num_pairs, int((singles > 0).sum()) + num_pairs
