"""Exact Hessian, Gauss-Newton and residual spectra of neural networks.

objective = hesspipe.Objective(model, loss_fn, (inputs, targets))
hesspipe.spectrum(objective).eigenvalues
"""

import lazy_loader

# Public names are looked up at first use: a script that draws a figure need not load torch.
# They are listed in __init__.pyi, for this module and for type checkers alike.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
