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
    from hesspipe.objective import Objective
    from hesspipe.outliers import count_outliers
    from hesspipe.spectra import Spectrum, spectrum

__all__ = [
    "DiagonalBlock",
    "Objective",
    "Spectrum",
    "count_outliers",
    "ggn_matrix",
    "hessian_matrix",
    "residual_matrix",
    "spectrum",
]

# Looked up at first use (PEP 562): a script that draws a figure need not load torch.
_HOMES = {
    "DiagonalBlock": "diagonal_blocks",
    "Objective": "objective",
    "Spectrum": "spectra",
    "count_outliers": "outliers",
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
