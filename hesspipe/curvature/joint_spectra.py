"""Spectra of H, G and R of an objective in one call.

G and R are formed once, and added to H = G + R. H is compared with the sum of the products of G and
R with random vectors, whose rounding was measured, and with products of its own. Layers are
searched for once. Three eigensolvers are left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hesspipe.curvature.dense import ExactMatrix, add_residual, exact_matrix
from hesspipe.curvature.exact_spectra import SpectrumMethod, objective_spectrum
from hesspipe.curvature.layers import find_layers
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.operators import objective_of
from hesspipe.curvature.spectra import recorded, require_double
from hesspipe.hardware import name_exhaustion
from hesspipe.linalg.spectrum import ZERO_TOLERANCE, Spectrum
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.objective import Objective

# Those that all three matrices have.
_METHODS = ("auto", "factored", "layers", "convolutions", "columns")


@name_exhaustion(
    "the three spectra",
    "call hesspipe.spectrum for one matrix at a time, or use hesspipe.eigenpairs or "
    "hesspipe.density, which form no matrix",
)
@differentiating()
def spectra(
    objective: Objective,
    method: SpectrumMethod = "auto",
    *,
    zero_tolerance: float = ZERO_TOLERANCE,
    certify: bool | None = None,
    progress: bool | None = None,
) -> dict[str, Spectrum]:
    """Compute the exact spectra of H, G and R at the objective's parameters.

    They are those of three calls of `hesspipe.spectrum`, up to rounding, with error bounds of their
    own. Where G and R are formed as matrices by the same method, H is their sum. This saves what
    forming and checking H takes, which is much for a small convolutional network, and little where
    the eigensolvers take most of the time.

    Parameters
    ----------
    objective : Objective
        In float64.
    method : {"auto", "factored", "layers", "convolutions", "columns"}
        For all three; "auto" chooses for each. See `hesspipe.spectrum`.
    zero_tolerance : float
        Multiple of the error bound up to which an eigenvalue counts as zero.
    certify : bool, optional
        Whether to count the signs a second time; by default where it takes less than a second.
    progress : bool, optional

    Returns
    -------
    dict of Spectrum
        By the names "hessian", "ggn" and "residual".

    Raises
    ------
    TypeError
        If the first argument is something else.
    TooLargeError
        If two matrices and the eigensolver do not fit into memory.
    ValueError
        If the method does not apply to the network, the objective is not float64, or an entry of a
        matrix is not finite.
    InconsistentMatrixError
        If a matrix disagrees with products computed without it, or H with G + R.

    Examples
    --------
    >>> import torch
    >>> inputs, targets = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> found = spectra(Objective(torch.nn.Linear(1, 1), torch.nn.MSELoss(), (inputs, targets)))
    >>> {name: result.num_positive for name, result in found.items()}
    {'hessian': 2, 'ggn': 2, 'residual': 0}
    """
    if method not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
    objective, _ = objective_of(objective, None)
    require_double(objective)
    layers = None if method == "columns" else find_layers(objective)
    options: dict[str, Any] = {"zero_tolerance": zero_tolerance, "certify": certify}
    options |= {"progress": progress, "layers": layers, "form": _Formed().form}
    found = {
        matrix: objective_spectrum(objective, matrix, method, **options)
        for matrix in (Matrix.RESIDUAL, Matrix.GGN, Matrix.HESSIAN)
    }
    return {str(matrix): recorded(found[matrix], objective) for matrix in Matrix}


@dataclass
class _Formed:
    """G and R, kept until H is computed."""

    parts: dict[Matrix, ExactMatrix] = field(default_factory=dict)

    def form(self, objective: Objective, matrix: Matrix, *args: Any, **kwargs: Any) -> ExactMatrix:
        """Form a matrix as `exact_matrix` does, and H as G + R where one method gave both."""
        if matrix is not Matrix.HESSIAN:
            self.parts[matrix] = exact_matrix(objective, matrix, *args, **kwargs)
            return self.parts[matrix]
        ggn, residual = (self.parts.pop(part, None) for part in (Matrix.GGN, Matrix.RESIDUAL))
        if ggn is not None and residual is not None and ggn.method == residual.method:
            return add_residual(objective, ggn, residual)
        del ggn, residual  # H needs their memory
        return exact_matrix(objective, matrix, *args, **kwargs)
