"""Exact Hessian, Gauss-Newton and residual spectra of neural networks.

objective = hesspipe.Objective(model, loss_fn, (inputs, targets))
hesspipe.spectrum(objective).eigenvalues
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hesspipe.dense import ggn_matrix, hessian_matrix, residual_matrix
    from hesspipe.diagonal_blocks import DiagonalBlock
    from hesspipe.extreme_pairs import Eigenpairs, NotConvergedError, eigenpairs
    from hesspipe.norms import estimate_norms
    from hesspipe.objective import Objective
    from hesspipe.operators import GGNOperator, HessianOperator, ResidualOperator
    from hesspipe.outliers import count_outliers
    from hesspipe.spectra import Spectrum, spectrum
    from hesspipe.spectral_density import Density, density

__all__ = [
    "Density",
    "DiagonalBlock",
    "Eigenpairs",
    "GGNOperator",
    "HessianOperator",
    "NotConvergedError",
    "Objective",
    "ResidualOperator",
    "Spectrum",
    "count_outliers",
    "density",
    "eigenpairs",
    "estimate_norms",
    "ggn_matrix",
    "hessian_matrix",
    "residual_matrix",
    "spectrum",
]

# Looked up at first use (PEP 562): a script that draws a figure need not load torch.
_HOMES = {
    "Density": "spectral_density",
    "DiagonalBlock": "diagonal_blocks",
    "Eigenpairs": "extreme_pairs",
    "GGNOperator": "operators",
    "HessianOperator": "operators",
    "NotConvergedError": "extreme_pairs",
    "Objective": "objective",
    "ResidualOperator": "operators",
    "Spectrum": "spectra",
    "count_outliers": "outliers",
    "density": "spectral_density",
    "eigenpairs": "extreme_pairs",
    "estimate_norms": "norms",
    "ggn_matrix": "dense",
    "hessian_matrix": "dense",
    "residual_matrix": "dense",
    "spectrum": "spectra",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hesspipe' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"hesspipe.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
